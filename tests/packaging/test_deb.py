"""The Debian package, built as `make deb` builds it. tests/lab/test_deb.py installs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TOP, tool

from cni_lease_reset import __version__

SHARED = ("prometheus", "harvester", "rancher")


def output(*command: str | Path) -> str:
    return subprocess.run(command, cwd=TOP, text=True, capture_output=True, check=True).stdout


def build(folder: Path, **settings: str) -> Path:
    """Build the package and its source into a folder and return the path of the package."""
    tool("dh_python3")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DIST": str(folder), **settings}
    done = subprocess.run([TOP / "packaging/deb/build"], env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*_all.deb"))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def source(package: Path) -> Path:
    return next(package.parent.glob("*.dsc"))


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    output("dpkg-deb", "--raw-extract", package, folder)
    return folder


def shared() -> set[str]:
    """What an operator hands on to Prometheus, Harvester or Rancher."""
    known = output("git", "ls-files", *(f"packaging/{each}" for each in SHARED)).split()
    return {path.removeprefix("packaging/") for path in known}


def test_both_are_named_by_the_version(package: Path) -> None:
    assert sorted(path.name for path in package.parent.iterdir()) == [
        f"cni-lease-reset_{__version__}.dsc",
        f"cni-lease-reset_{__version__}.tar.xz",
        f"cni-lease-reset_{__version__}_all.deb",
    ]
    assert output("dpkg-deb", "--field", package, "Version") == f"{__version__}\n"


def test_a_commit_gives_the_same_bytes_whoever_builds_it(package: Path, tmp_path: Path) -> None:
    build(tmp_path, TZ="Asia/Kathmandu", LC_ALL="C.UTF-8", DEB_BUILD_OPTIONS="terse", DEBEMAIL="me@example.com")
    for made in package.parent.iterdir():
        assert (tmp_path / made.name).read_bytes() == made.read_bytes(), made.name


def test_lintian_has_nothing_to_say(package: Path, source: Path) -> None:
    command: list[str | Path] = [tool("lintian"), "--allow-root", "--show-overrides", package, source]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_the_package_holds_these_files_and_no_others(package: Path) -> None:
    lines = output("dpkg-deb", "--contents", package).splitlines()
    listed = {f"{mode} {owner} {name[1:]}" for mode, owner, _, _, _, name in (line.split() for line in lines)}
    plain = """\
/etc/cni-lease-reset/config.yaml
/usr/lib/systemd/catalog/cni-lease-reset.catalog
/usr/lib/systemd/system/cni-lease-reset-metrics.service
/usr/lib/systemd/system/cni-lease-reset-metrics.timer
/usr/lib/systemd/system/cni-lease-reset-recover.service
/usr/lib/systemd/system/cni-lease-reset-recover.timer
/usr/lib/systemd/system/cni-lease-reset.service
/usr/share/bash-completion/completions/cni-lease-reset
/usr/share/doc/cni-lease-reset/CHANGELOG.md.gz
/usr/share/doc/cni-lease-reset/README.md.gz
/usr/share/doc/cni-lease-reset/SECURITY.md.gz
/usr/share/doc/cni-lease-reset/changelog.gz
/usr/share/doc/cni-lease-reset/copyright
/usr/share/fish/vendor_completions.d/cni-lease-reset.fish
/usr/share/man/man5/cni-lease-reset.yaml.5.gz
/usr/share/man/man8/cni-lease-reset.8.gz
/usr/share/zsh/vendor-completions/_cni-lease-reset
""".splitlines()
    modules = [f"/usr/lib/cni-lease-reset/{path}" for path in output("git", "ls-files", "cni_lease_reset/*.py").split()]
    files = {*plain, *modules, *(f"/usr/share/cni-lease-reset/{path}" for path in shared())}
    # The second one compiles anew when Debian's Python becomes a newer one.
    programs = {"/usr/bin/cni-lease-reset", "/usr/share/python3/runtime.d/cni-lease-reset.rtupdate"}
    folders = {str(parent) for path in files | programs for parent in Path(path).parents}
    expected = {f"-rw-r--r-- root/root {path}" for path in files}
    expected |= {f"-rwxr-xr-x root/root {path}" for path in programs}
    expected |= {f"drwxr-xr-x root/root {path.rstrip('/')}/" for path in folders}
    assert listed == expected


def test_what_an_operator_hands_on_is_as_it_is_in_the_checkout(unpacked: Path) -> None:
    for path in shared():
        assert (unpacked / "usr/share/cni-lease-reset" / path).read_bytes() == (TOP / "packaging" / path).read_bytes()


def test_the_programs_of_both_packages_are_one(unpacked: Path) -> None:
    program = "usr/bin/cni-lease-reset"
    assert (unpacked / program).read_bytes() == (TOP / "packaging/rpm/cni-lease-reset").read_bytes()


def test_the_metrics_go_where_the_node_exporter_of_debian_reads(unpacked: Path) -> None:
    unit = (unpacked / "usr/lib/systemd/system/cni-lease-reset-metrics.service").read_text()
    place = "/var/lib/prometheus/node-exporter"
    assert f"--metrics={place}/cni-lease-reset.prom\n" in unit
    assert re.findall(r"^ReadWritePaths=.*", unit, re.MULTILINE)[0].endswith(f" -{place}")


def test_an_edited_configuration_is_kept_and_it_is_the_only_one(unpacked: Path) -> None:
    assert (unpacked / "DEBIAN/conffiles").read_text() == "/etc/cni-lease-reset/config.yaml\n"


def test_the_package_needs_these_and_no_others(package: Path) -> None:
    needs = output("dpkg-deb", "--field", package, "Depends").strip().split(", ")
    assert sorted(needs) == ["python3 (>= 3.11)", "python3-yaml", "python3:any"]
    assert output("dpkg-deb", "--field", package, "Recommends").strip() == "python3-pystemd"


def commands(script: Path) -> str:
    """A maintainer script without its comments."""
    return re.sub(r"^\s*#.*", "", script.read_text(), flags=re.MULTILINE)


ACTS = re.compile(r"(?<![\w-])(?:(?:re|try-re)?start|stop|disable|mask|preset)(?![\w-])")


@pytest.mark.parametrize("script", ["preinst", "postinst"])
def test_no_script_of_an_installation_or_upgrade_stops_or_starts_anything(unpacked: Path, script: str) -> None:
    assert not ACTS.findall(commands(unpacked / "DEBIAN" / script))
    assert "deb-systemd-invoke" not in commands(unpacked / "DEBIAN" / script)


def test_only_the_removal_stops_anything(unpacked: Path) -> None:
    """The old package's prerm runs at each upgrade, too."""
    prerm = commands(unpacked / "DEBIAN/prerm")
    assert ACTS.findall(prerm) == ["stop"]
    command = re.search(r'^if \[ "\$1" = remove \].*?\n(.*?)^fi$', prerm, re.MULTILINE | re.DOTALL)
    assert command
    units = {path.name for path in (TOP / "packaging/systemd").glob("*.[st]*") if path.suffix in {".service", ".timer"}}
    assert set(re.findall(r"cni-lease-reset\S*\.(?:service|timer)", command[1])) == units


def test_the_program_finds_its_modules_where_the_package_has_them(unpacked: Path) -> None:
    code = "import sys; sys.path[:0] = [sys.argv[1]]; import cni_lease_reset; print(cni_lease_reset.__version__)"
    home = unpacked / "usr/lib/cni-lease-reset"
    assert output(sys.executable, "-I", "-c", code, home) == f"{__version__}\n"
