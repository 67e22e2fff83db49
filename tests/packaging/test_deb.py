"""The Debian package, built as ``make deb`` builds it. deb_on_a_node.py (``make deb-test``) installs it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import TOP, tool

from cni_lease_reset import __version__

PACKAGE = f"cni-lease-reset_{__version__}_all.deb"
SOURCE = (f"cni-lease-reset_{__version__}.dsc", f"cni-lease-reset_{__version__}.tar.xz")
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
DOCUMENTS = "usr/share/doc/cni-lease-reset"
HOME = "usr/lib/cni-lease-reset"


def output(*command: str | Path) -> str:
    return subprocess.run(command, cwd=TOP, text=True, capture_output=True, check=True).stdout


def build(folder: Path, release: str = "") -> Path:
    """Build both packages into a folder and return the path of the binary one."""
    tool("dh_python3")
    # What a developer's own surroundings say must not matter.
    own = {"DEB_BUILD_OPTIONS": "noopt", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "HOME": "/nonexistent"}
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DIST": str(folder), "RELEASE": release, **own}
    command = ["sh", "-c", f"umask 077; {TOP}/packaging/deb/build"]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.deb"))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def scripts(package: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("control") / "DEBIAN"
    output("dpkg-deb", "--control", package, folder)
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def tree(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    output("dpkg-deb", "--extract", package, folder)
    return folder


def test_it_makes_the_package_and_its_source_and_nothing_else(package: Path) -> None:
    assert sorted(path.name for path in package.parent.iterdir()) == sorted((PACKAGE, *SOURCE))


def test_the_same_commit_gives_the_same_bytes(package: Path, tmp_path: Path) -> None:
    build(tmp_path)
    for name in (PACKAGE, *SOURCE):
        assert (tmp_path / name).read_bytes() == (package.parent / name).read_bytes()


def test_a_newer_release_is_newer_to_dpkg(tmp_path: Path) -> None:
    newer = output("dpkg-deb", "--field", build(tmp_path, release="2"), "Version").strip()
    assert subprocess.run(["dpkg", "--compare-versions", newer, "gt", __version__], check=False).returncode == 0


def test_lintian_has_nothing_to_say(package: Path) -> None:
    command: list[str | Path] = [
        tool("lintian"),
        "--allow-root",
        "--fail-on=warning,error",
        package,
        package.with_name(SOURCE[0]),
    ]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_no_script_stops_or_restarts_anything_but_at_removal(scripts: dict[str, str]) -> None:
    act = r"(?:systemctl|deb-systemd-invoke)\s.*?\b(stop|start|\S*restart|isolate)\b"
    acts = {name: set(re.findall(act, scripts[name])) for name in SCRIPTS}
    assert acts == {"preinst": set(), "postinst": set(), "prerm": {"stop"}, "postrm": set()}
    for stop in re.finditer("deb-systemd-invoke stop", scripts["prerm"]):  # forky's debhelper has some for the timers
        condition = scripts["prerm"][: stop.start()].rpartition("\nif ")[2].partition("\n")[0]
        assert '[ "$1" = remove ] && [ -d /run/systemd/system ]' in condition


def test_systemd_reads_the_units_anew(scripts: dict[str, str]) -> None:
    after = scripts["postinst"].rpartition("# End automatically added section")[2]
    assert "systemctl --system daemon-reload" in after
    assert "systemctl --system daemon-reload" in scripts["postrm"]


def test_the_boot_unit_is_enabled_and_the_timers_are_for_their_operator(scripts: dict[str, str]) -> None:
    postinst = scripts["postinst"]
    was = "if deb-systemd-helper --quiet was-enabled 'cni-lease-reset.service'"
    assert was in postinst, "an administrator's disable survives"
    assert "unmask 'cni-lease-reset.service'" in postinst, "of what it masked itself at removal, and no other"
    for timer in ("metrics", "recover"):
        installed = f"if deb-systemd-helper debian-installed 'cni-lease-reset-{timer}.timer'"
        assert postinst.index(installed) < postinst.index(f"enable 'cni-lease-reset-{timer}.timer'")


def test_an_edited_configuration_is_kept_and_it_is_the_only_one(scripts: dict[str, str]) -> None:
    assert scripts["conffiles"] == "/etc/cni-lease-reset/config.yaml\n"


def test_the_package_needs_these_and_no_others(package: Path) -> None:
    fields = {name: output("dpkg-deb", "--field", package, name).strip() for name in ("Depends", "Recommends")}
    assert fields == {"Depends": "python3 (>= 3.11), python3-yaml, python3:any", "Recommends": "python3-pystemd"}
    assert output("dpkg-deb", "--field", package, "Pre-Depends").strip() == ""


def test_the_package_holds_these_files_and_no_others(tree: Path, package: Path) -> None:
    listed = """\
etc/cni-lease-reset/config.yaml
usr/bin/cni-lease-reset
usr/lib/systemd/catalog/cni-lease-reset.catalog
usr/lib/systemd/system/cni-lease-reset-metrics.service
usr/lib/systemd/system/cni-lease-reset-metrics.timer
usr/lib/systemd/system/cni-lease-reset-recover.service
usr/lib/systemd/system/cni-lease-reset-recover.timer
usr/lib/systemd/system/cni-lease-reset.service
usr/share/bash-completion/completions/cni-lease-reset
usr/share/doc/cni-lease-reset/CHANGELOG.md
usr/share/doc/cni-lease-reset/README.md.gz
usr/share/doc/cni-lease-reset/SECURITY.md.gz
usr/share/doc/cni-lease-reset/changelog.gz
usr/share/doc/cni-lease-reset/copyright
usr/share/fish/vendor_completions.d/cni-lease-reset.fish
usr/share/man/man5/cni-lease-reset.yaml.5.gz
usr/share/man/man8/cni-lease-reset.8.gz
usr/share/python3/runtime.d/cni-lease-reset.rtupdate
usr/share/zsh/vendor-completions/_cni-lease-reset
"""
    expected = listed.splitlines()
    expected += [f"{HOME}/{path.relative_to(TOP)}" for path in (TOP / "cni_lease_reset").rglob("*.py")]
    expected += [f"usr/share/cni-lease-reset/{path}" for path in handed_on()]
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()) == sorted(expected)
    owners = {line.split()[1] for line in output("dpkg-deb", "--contents", package).splitlines()}
    assert owners == {"root/root"}
    program = {
        str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file() and path.stat().st_mode & 0o111
    }
    assert program == {"usr/bin/cni-lease-reset", "usr/share/python3/runtime.d/cni-lease-reset.rtupdate"}


def handed_on() -> list[Path]:
    """What an operator gives to others as it is; not what makes it, which has no extension."""
    folders = [TOP / "packaging" / name for name in ("prometheus", "harvester", "rancher")]
    known = output("git", "ls-files", *folders).split()
    return [Path(path).relative_to("packaging") for path in known if Path(path).suffix]


def test_what_is_handed_on_is_whole(tree: Path) -> None:
    assert Path("prometheus/alerts.yaml") in handed_on()
    for path in handed_on():
        assert (tree / "usr/share/cni-lease-reset" / path).read_bytes() == (TOP / "packaging" / path).read_bytes()


def test_the_metrics_are_written_where_debians_node_exporter_reads(tree: Path) -> None:
    shipped = (tree / "usr/lib/systemd/system/cni-lease-reset-metrics.service").read_text()
    [line] = re.findall(r"^ExecStart=.* --metrics=(.*)$", shipped, re.MULTILINE)
    assert line == "/var/lib/prometheus/node-exporter/cni-lease-reset.prom"
    ours = (TOP / "packaging/systemd/cni-lease-reset-metrics.service").read_text()
    assert shipped.replace("prometheus/node-exporter/cni", "node_exporter/textfile_collector/cni") == ours
    [writable] = re.findall(r"^ReadWritePaths=(.*)$", shipped, re.MULTILINE)
    assert "-/var/lib/prometheus/node-exporter" in writable.split()


def test_all_other_files_are_the_checkouts(tree: Path) -> None:
    for path in (tree / HOME).rglob("*.py"):
        assert path.read_bytes() == (TOP / path.relative_to(tree / HOME)).read_bytes()
    for name in ("cni-lease-reset.service", "cni-lease-reset-recover.service", "cni-lease-reset-recover.timer"):
        shipped = tree / "usr/lib/systemd/system" / name
        assert shipped.read_bytes() == (TOP / "packaging/systemd" / name).read_bytes()
    launcher = (TOP / "packaging/rpm/cni-lease-reset").read_bytes()
    assert (tree / "usr/bin/cni-lease-reset").read_bytes() == launcher
    assert launcher.startswith(b"#!/usr/bin/python3 -IS\n")


def test_the_source_builds_the_same_package(package: Path, tmp_path: Path) -> None:
    """As whoever has the source alone would build it."""
    for name in SOURCE:
        shutil.copy(package.with_name(name), tmp_path)
    subprocess.run(["dpkg-source", "-x", SOURCE[0], "source"], cwd=tmp_path, check=True, capture_output=True)
    command = ["dpkg-buildpackage", "--build=binary", "--no-sign"]
    subprocess.run(command, cwd=tmp_path / "source", check=True, capture_output=True)
    assert (tmp_path / PACKAGE).read_bytes() == package.read_bytes()
