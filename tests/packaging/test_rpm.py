"""The package, built as `make rpm` builds it, and installed with rpm where nothing else of ours is."""

import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jeepney
import pytest
from conftest import OTHER, TOP, Tree
from programs import STAND_IN

from cni_lease_reset import __version__

RPM = TOP / "packaging/rpm"
HANDED_ON = [f"packaging/{folder}" for folder in ("prometheus", "harvester", "rancher")]
INSTALL = "rpm --install --nodeps /run/package.rpm 2>/run/install.log"


def output(*command: str | Path) -> str:
    return subprocess.run(command, cwd=TOP, text=True, capture_output=True, check=True).stdout


def build(folder: Path, release: str = "") -> Path:
    """Build both packages into a folder and return the path of the binary one."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DIST": str(folder), "RELEASE": release}
    done = subprocess.run([RPM / "build"], env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.noarch.rpm"))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def source(package: Path) -> Path:
    return next(package.parent.glob("*.src.rpm"))


@pytest.fixture
def machine(package: Path) -> Iterator[Tree]:
    """A machine of its own, for :func:`run`, with the package at hand. (A short path, for it will hold sockets.)"""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:  # rpm syncs its database
        tree = Tree(Path(directory))
        (tree.root / "run").mkdir(exist_ok=True)
        (tree.root / "var").mkdir()
        shutil.copy(package, tree.root / "run/package.rpm")
        yield tree


def run(machine: Tree, *script: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [TOP / "tests/clean-tree", machine.root, "\n".join(script)]
    return subprocess.run(command, text=True, capture_output=True, check=False)


def answer(machine: Tree, *script: str) -> str:
    done = run(machine, INSTALL, *script)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_scriptlets_hold_no_macro_that_nobody_expanded(package: Path) -> None:
    scripts = output("rpm", "-qp", "--scripts", package)
    assert "preset cni-lease-reset.service" in scripts
    assert "%" not in scripts


def test_no_scriptlet_restarts_anything(package: Path) -> None:
    assert "restart" not in output("rpm", "-qp", "--scripts", package)


def test_the_same_commit_gives_the_same_packages(package: Path, source: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert again.read_bytes() == package.read_bytes()
    assert (tmp_path / source.name).read_bytes() == source.read_bytes()


def test_spec_and_program_are_of_one_version() -> None:
    spec = (RPM / "cni-lease-reset.spec").read_text()
    assert re.findall(r"^Version: +(.+)$", spec, re.MULTILINE) == [__version__]


def test_rpmlint_has_nothing_to_say(package: Path, source: Path) -> None:
    command: list[str | Path] = [
        "rpmlint",
        "--config",
        RPM / "rpmlint.toml",
        package,
        source,
        RPM / "cni-lease-reset.spec",
    ]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert "2 packages and 1 specfiles checked; 0 errors, 0 warnings" in done.stdout, done.stdout


def test_the_package_holds_these_files_and_no_others(package: Path) -> None:
    listed = output(
        "rpm", "-qp", "--qf", r"[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]", package
    )
    expected = """\
drwxr-xr-x root:root /etc/cni-lease-reset
-rw-r--r-- root:root /etc/cni-lease-reset/config.yaml
-rwxr-xr-x root:root /usr/bin/cni-lease-reset
drwxr-xr-x root:root /usr/lib/cni-lease-reset
drwxr-xr-x root:root /usr/lib/cni-lease-reset/cni_lease_reset
drwxr-xr-x root:root /usr/lib/cni-lease-reset/cni_lease_reset/commands
drwxr-xr-x root:root /usr/lib/cni-lease-reset/cni_lease_reset/core
drwxr-xr-x root:root /usr/lib/cni-lease-reset/cni_lease_reset/edges
-rw-r--r-- root:root /usr/lib/systemd/catalog/cni-lease-reset.catalog
-rw-r--r-- root:root /usr/lib/systemd/system-preset/50-cni-lease-reset.preset
-rw-r--r-- root:root /usr/lib/systemd/system/cni-lease-reset-metrics.service
-rw-r--r-- root:root /usr/lib/systemd/system/cni-lease-reset-metrics.timer
-rw-r--r-- root:root /usr/lib/systemd/system/cni-lease-reset-recover.service
-rw-r--r-- root:root /usr/lib/systemd/system/cni-lease-reset-recover.timer
-rw-r--r-- root:root /usr/lib/systemd/system/cni-lease-reset.service
-rw-r--r-- root:root /usr/share/bash-completion/completions/cni-lease-reset
drwxr-xr-x root:root /usr/share/cni-lease-reset
drwxr-xr-x root:root /usr/share/doc/cni-lease-reset
-rw-r--r-- root:root /usr/share/doc/cni-lease-reset/CHANGELOG.md
-rw-r--r-- root:root /usr/share/doc/cni-lease-reset/README.md
-rw-r--r-- root:root /usr/share/doc/cni-lease-reset/SECURITY.md
-rw-r--r-- root:root /usr/share/fish/vendor_completions.d/cni-lease-reset.fish
drwxr-xr-x root:root /usr/share/licenses/cni-lease-reset
-rw-r--r-- root:root /usr/share/licenses/cni-lease-reset/LICENSE
-rw-r--r-- root:root /usr/share/man/man5/cni-lease-reset.yaml.5.gz
-rw-r--r-- root:root /usr/share/man/man8/cni-lease-reset.8.gz
-rw-r--r-- root:root /usr/share/zsh/site-functions/_cni-lease-reset
"""
    home = "-rw-r--r-- root:root /usr/lib/cni-lease-reset/cni_lease_reset"
    modules = [path.relative_to(TOP / "cni_lease_reset") for path in (TOP / "cni_lease_reset").rglob("*.py")]
    python = [f"{home}/{module}" for module in modules]
    handed_on = [Path(line) for line in output("git", "ls-files", *HANDED_ON).split() if Path(line).suffix]
    python += [f"-rw-r--r-- root:root /usr/share/cni-lease-reset/{path.relative_to('packaging')}" for path in handed_on]
    folders = {path.parent.relative_to("packaging") for path in handed_on}
    python += [f"drwxr-xr-x root:root /usr/share/cni-lease-reset/{folder}" for folder in folders]
    # Debian's rpm puts the version into the names of the folders of documents.
    lines = listed.replace(f"cni-lease-reset-{__version__}", "cni-lease-reset").splitlines()
    assert sorted(lines) == sorted(expected.splitlines() + python)


def test_an_edited_configuration_is_kept_and_it_is_the_only_one(package: Path) -> None:
    files = output("rpm", "-qp", "--qf", r"[%{FILEFLAGS:fflags} %{FILENAMES}\n]", package).splitlines()
    assert [line for line in files if "c" in line.split(" ")[0]] == ["cn /etc/cni-lease-reset/config.yaml"]


def test_the_package_needs_these_and_no_others(package: Path) -> None:
    requires = set(output("rpm", "-qp", "--requires", package).splitlines())
    named = {line for line in requires if not line.startswith(("rpmlib(", "config("))}
    expected = {
        "/bin/sh",
        "/usr/bin/python3",
        "python3 >= 3.11",
        "python3-pystemd >= 0.11",
        "python3-pyyaml",
        "coreutils",
        "systemd",
    }
    assert named == expected


PYTHON = "/usr/bin/python3"
EITHER_YAML = "(python3-PyYAML or python311-PyYAML)"
PYTHON_311 = "/usr/bin/python3.11"


@pytest.mark.parametrize(
    ("macros", "family", "python", "yaml", "pystemd"),
    [
        ("systemd", "fedora 43", PYTHON, "python3-pyyaml", "requires python3-pystemd >= 0.11"),
        ("systemd", "rhel 10", PYTHON, "python3-pyyaml", "requires python3-pystemd >= 0.11"),
        ("systemd", "rhel 9", PYTHON_311, "python3.11-pyyaml", "recommends python3.11-pystemd >= 0.11"),
        ("suse", "suse_version 1500", PYTHON_311, "python311-PyYAML", "recommends python311-pystemd >= 0.11"),
        ("suse", "suse_version 1600", PYTHON, EITHER_YAML, "recommends python3-pystemd >= 0.11"),
        ("suse", "suse_version 1699", PYTHON, EITHER_YAML, "recommends python3-pystemd >= 0.11"),
    ],
    ids=["Fedora", "EL 10", "EL 9", "SLES 15", "SLES 16 and SL Micro 6", "Tumbleweed"],
)
def test_each_family_can_read_the_spec(macros: str, family: str, python: str, yaml: str, pystemd: str) -> None:
    rpmspec = ("rpmspec", f"--load=tests/macros/{macros}", "--define", family)
    query = r"[requires %{REQUIRENEVRS}\n][recommends %{RECOMMENDNEVRS}\n]"
    needs = set(output(*rpmspec, "--query", "--qf", query, RPM / "cni-lease-reset.spec").splitlines())
    assert {f"requires {python}", f"requires {yaml}", pystemd} <= needs
    query = r"%{PREIN}\n%{POSTIN}\n%{PREUN}\n%{POSTUN}\n%{POSTTRANS}\n"
    scripts = output(*rpmspec, "--query", "--qf", query, RPM / "cni-lease-reset.spec")
    assert scripts.count("cni-lease-reset.service") >= 2
    assert scripts.count("cni-lease-reset-metrics.timer") == scripts.count("cni-lease-reset.service")
    assert "%" not in scripts
    assert "restart" not in scripts
    parsed = output(*rpmspec, "--parse", RPM / "cni-lease-reset.spec")
    assert f"#!{python} |' packaging/rpm/cni-lease-reset" in parsed
    # By the family's own macro, or on the node with its own Python: never both, nor by a macro for another one.
    by_macro = re.findall(r"^(COMPILED BY .*)$", parsed, re.MULTILINE)
    on_node = re.findall(r"^(\S+) -I -m compileall", parsed, re.MULTILINE)
    assert (by_macro, on_node) == (([], [python]) if family == "suse_version 1500" else (by_macro[:1], []))
    assert all(line.startswith(f"COMPILED BY {python} IN ") for line in by_macro)
    assert ("-m pytest" in parsed) is ("python3-pytest" in build_needs(rpmspec)) is (python == PYTHON)


def build_needs(rpmspec: Sequence[str]) -> str:
    return output(*rpmspec, "--query", "--buildrequires", RPM / "cni-lease-reset.spec")


def test_whoever_distributes_it_says_where_the_project_lives() -> None:
    where = "https://example.org/cni-lease-reset"
    query = ("--query", "--qf", "%{URL}", RPM / "cni-lease-reset.spec")
    assert output("rpmspec", "--define", f"project_url {where}", *query) == where
    assert output("rpmspec", *query) == "(none)"


def test_a_tests_failure_fails_the_build(tmp_path: Path) -> None:
    """%check is no ornament."""
    source = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", TOP, source], check=True)
    for path in ("packaging/rpm", "cni_lease_reset"):  # as they are here, committed or not
        shutil.copytree(TOP / path, source / path, dirs_exist_ok=True)
    (source / ".venv").symlink_to(TOP / ".venv")
    verdict = source / "cni_lease_reset/core/verdict.py"
    verdict.write_text(verdict.read_text().replace("UNCLEAN", "CLEAN"))
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DIST": str(tmp_path / "dist")}
    build = [source / "packaging/rpm/build"]
    done = subprocess.run(build, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode != 0
    assert "Bad exit status from" in done.stderr
    assert "tests/core/test_verdict.py" in done.stderr


def test_the_package_is_small(package: Path) -> None:
    assert package.stat().st_size < 190_000, "no byte-code for one Python alone is in it"


def test_the_installed_program_runs_without_the_checkout(machine: Tree) -> None:
    machine.mark("running", OTHER)
    machine.lease("10.52.0.2")
    node = machine.root / "var/node"
    shutil.copytree(machine.root, node, ignore=shutil.ignore_patterns("node", "package.rpm"))
    script = (
        "cni-lease-reset --version",
        "cni-lease-reset config",
        "cni-lease-reset --root /var/node boot 2>&1",
        "ls /",
    )
    lines = answer(machine, *script).splitlines()
    assert lines[0] == f"cni-lease-reset {__version__}"
    assert lines[1] == "networks: [k8s-pod-network, cbr0]  # default"
    assert any("Unclean shutdown: 1 lease set aside" in line for line in lines)
    assert set(lines[-12:]) <= {
        "bin",
        "dev",
        "etc",
        "home",
        "lib",
        "lib64",
        "proc",
        "root",
        "run",
        "sbin",
        "tmp",
        "usr",
        "var",
    }
    assert "state=running" in (node / "var/lib/cni/cni-lease-reset/marker").read_text()


def test_no_boot_compiles_even_where_the_times_of_files_were_reset(machine: Tree) -> None:
    reset = "find /usr/lib/cni-lease-reset -exec touch --date=1970-01-01 {} +"
    loaded = answer(machine, reset, "python3 -I -v /usr/bin/cni-lease-reset boot 2>&1")
    ours = re.findall(r"^# code object from '?(/usr/lib/cni-lease-reset/[^']*)", loaded, re.MULTILINE)
    assert len(ours) >= 15
    assert [path for path in ours if not path.endswith(".pyc")] == []


def test_the_byte_code_is_of_these_very_sources(machine: Tree) -> None:
    code = (
        "import importlib.util, pathlib\n"
        'for source in pathlib.Path("/usr/lib/cni-lease-reset").rglob("*.py"):\n'
        "    pyc = pathlib.Path(importlib.util.cache_from_source(source)).read_bytes()\n"
        '    assert pyc[4:8] == b"\\1\\0\\0\\0", "a hash, never checked"\n'
        "    assert pyc[8:16] == importlib.util.source_hash(source.read_bytes())\n"
        '    print("same", source.name)\n'
    )
    same = answer(machine, f"python3 -c '{code}'").splitlines()
    assert len(same) == len(list((TOP / "cni_lease_reset").rglob("*.py")))


def test_the_environment_decides_nothing(machine: Tree) -> None:
    told = answer(
        machine,
        "mkdir -p /tmp/evil/cni_lease_reset",
        "echo 'raise SystemExit(\"taken in\")' | tee /tmp/evil/argparse.py >/tmp/evil/cni_lease_reset/__init__.py",
        "cd /tmp/evil",
        "PYTHONPATH=/tmp/evil PYTHONHOME=/tmp/evil PYTHONSTARTUP=/tmp/evil/argparse.py cni-lease-reset --version",
    )
    assert told == f"cni-lease-reset {__version__}\n"


def test_systemd_takes_the_installed_units_and_finds_their_manual(machine: Tree) -> None:
    assert answer(machine, "systemd-analyze verify /usr/lib/systemd/system/cni-lease-reset*") == ""


def test_installing_enables_the_boot_unit_and_starts_nothing(machine: Tree) -> None:
    told = answer(machine, "systemctl is-enabled cni-lease-reset.service", "ls -A /var/lib/cni 2>&1 || :")
    assert told.splitlines() == ["enabled", "ls: cannot access '/var/lib/cni': No such file or directory"]


@pytest.mark.parametrize("running", [True, False])
def test_coming_to_a_running_system_leaves_a_note_once(machine: Tree, tmp_path: Path, running: bool) -> None:
    """And an update leaves none: there a boot that was not judged is a fault."""
    if running:
        (machine.root / "run/systemd/system").mkdir(parents=True)
    shutil.copy(build(tmp_path, release="2"), machine.root / "run/newer.rpm")
    note = "/run/cni-lease-reset/installed"
    told = answer(
        machine,
        f"ls {note} 2>&1 || :",
        f"rm -f {note}",
        "rpm --upgrade --nodeps /run/newer.rpm 2>/dev/null",
        f"ls {note} 2>&1 || :",
    )
    none = f"ls: cannot access '{note}': No such file or directory"
    assert told.splitlines() == [note if running else none, none]


def test_removing_takes_the_metrics_along(machine: Tree, tmp_path: Path) -> None:
    """Or node_exporter goes on telling what nobody writes any more."""
    shutil.copy(build(tmp_path, release="2"), machine.root / "run/newer.rpm")
    file = "/var/lib/node_exporter/textfile_collector/cni-lease-reset.prom"
    told = answer(
        machine,
        f"mkdir -p {file.rpartition('/')[0]}; cni-lease-reset status --metrics={file}",
        "rpm --upgrade --nodeps /run/newer.rpm 2>/dev/null",
        f"ls {file}",
        "rpm --erase --nodeps cni-lease-reset 2>/dev/null",
        f"ls {file} 2>&1 || :",
        "ls -d /usr/lib/cni-lease-reset 2>&1 || :",
    )
    assert told.splitlines() == [
        file,
        f"ls: cannot access '{file}': No such file or directory",
        "ls: cannot access '/usr/lib/cni-lease-reset': No such file or directory",
    ]


TIMERS = ("cni-lease-reset-metrics.timer", "cni-lease-reset-recover.timer")
UNITS = ("cni-lease-reset.service", *TIMERS)


@pytest.mark.parametrize("timer", TIMERS)
def test_what_a_timer_runs_is_installed_and_left_to_the_operator(machine: Tree, timer: str) -> None:
    told = answer(
        machine,
        f"systemctl is-enabled {timer} || :",
        f"systemctl is-enabled {timer.replace('.timer', '.service')} || :",  # static: nothing but its timer starts it
        "systemctl preset-all 2>/dev/null",  # as a first boot does; where no preset names a unit, Debian's enables it
        f"systemctl is-enabled {timer} || :",
        f"systemctl --quiet enable {timer} 2>/dev/null",
        f"systemctl is-enabled {timer}",
    )
    assert told.splitlines() == ["disabled", "static", "disabled", "enabled"]


def test_removing_disables_all_units(machine: Tree, package: Path) -> None:
    wanted = "find /etc/systemd -name 'cni-lease-reset*' | sort"
    enable = f"systemctl --quiet enable {' '.join(TIMERS)} 2>/dev/null"
    told = answer(machine, enable, wanted, "echo --", "rpm --erase --nodeps cni-lease-reset 2>/dev/null", wanted)
    enabled, left = told.split("--\n")
    assert sorted(path.rpartition("/")[2] for path in enabled.split()) == sorted(UNITS)
    assert left == ""
    assert f"disable --now {' '.join(UNITS)}" in output("rpm", "-qp", "--scripts", package)  # where systemd runs


def test_an_update_enables_nothing_that_was_disabled_and_keeps_the_settings(machine: Tree, tmp_path: Path) -> None:
    shutil.copy(build(tmp_path, release="2"), machine.root / "run/newer.rpm")
    told = answer(
        machine,
        "systemctl --quiet disable cni-lease-reset.service 2>/dev/null",
        "echo 'keep_resets: 7' >>/etc/cni-lease-reset/config.yaml",
        "rpm --upgrade --nodeps /run/newer.rpm 2>/dev/null",
        "rpm -q cni-lease-reset",
        "systemctl is-enabled cni-lease-reset.service || :",
        "cni-lease-reset config | grep keep_resets",
    )
    assert told.splitlines() == [
        f"cni-lease-reset-{__version__}-2.noarch",
        "disabled",
        "keep_resets: 7  # from the file",
    ]


def test_removing_leaves_leases_and_state_alone(machine: Tree) -> None:
    machine.mark("running", OTHER)
    machine.lease("10.52.0.2")
    look = "find /var/lib/cni -printf '%p %m %U:%G %s\\n' | sort"
    told = answer(
        machine,
        "cni-lease-reset boot 2>/dev/null",
        "touch /var/lib/cni/networks/k8s-pod-network/10.52.0.3",
        look,
        "echo --",
        "rpm --erase --nodeps cni-lease-reset 2>/dev/null",
        look,
        "echo --",
        "find /etc /usr /var -name '*cni*lease*'",
    )
    before, after, left = told.split("--\n")
    assert "/set-aside/1-" in before
    assert after == before
    assert "lease" not in left.replace("/var/lib/cni/cni-lease-reset", "")


def test_the_folder_of_cni_keeps_its_mode_and_owner(machine: Tree) -> None:
    machine.lease("10.52.0.2")
    cni = machine.root / "var/lib/cni"
    cni.chmod(0o700)
    shutil.chown(cni, 1234, 5678)
    shutil.chown(machine.network, 1234, 5678)
    answer(machine, "/usr/bin/mkdir -p /var/lib/cni/cni-lease-reset", "cni-lease-reset boot 2>/dev/null")
    assert [(f"{s.st_mode:o}", s.st_uid, s.st_gid) for s in (cni.stat(), machine.network.stat())] == [
        ("40700", 1234, 5678),
        ("40755", 1234, 5678),
    ]
    assert machine.set_aside() == {"10.52.0.2"}


@contextmanager
def journald(machine: Tree, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen where journald does."""
    (machine.root / "run/systemd/journal").mkdir(parents=True)
    monkeypatch.chdir(machine.root)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("run/systemd/journal/socket")
        listener.setblocking(False)
        yield listener


def received(listener: socket.socket) -> Iterator[dict[str, str]]:
    while True:
        try:
            datagram = listener.recv(65536).decode()
        except BlockingIOError:
            return
        yield dict(line.split("=", 1) for line in datagram.splitlines())


def standing_in(machine: Tree, *arguments: str) -> str:
    """Return the line of a script that has somebody answer where systemctl asks as root.

    It trusts only the processes of its own PID namespace, so that one starts in there.
    """
    place = machine.root / "run/stand-in"
    shutil.copytree(Path(jeepney.__file__).parent, place / "jeepney")
    shutil.copy(STAND_IN, place / "systemd.py")
    program = f"python3 /run/stand-in/systemd.py /run/systemd/private {' '.join(arguments)} 2>/run/stand-in/log"
    return f"mkdir -p /run/systemd/system; mkfifo /run/ready; {program} >/run/ready & read ready </run/ready"


@pytest.mark.parametrize(
    ("unit", "told"),
    [
        ("x.service=activating", ("activating", True, False)),
        ("x.service=failed", ("failed", True, False)),
        ("x.service@17", ("inactive", True, True)),
        ("y.service=active", ("inactive", False, False)),
    ],
)
def test_without_pystemd_systemctl_tells_whether_a_unit_is_up_or_was(
    machine: Tree, unit: str, told: tuple[str, bool, bool]
) -> None:
    code = (
        "import sys; sys.path[:0] = ['/usr/lib/cni-lease-reset']; from cni_lease_reset.edges.systemd import Systemd; "
        "print(Systemd().runtime(['x.service'])[0].units[0][:3])"
    )
    away = "rm -r /usr/lib/python3/dist-packages/pystemd*"
    said = answer(machine, away, standing_in(machine, "running", unit), f'python3 -I -c "{code}"')
    assert said == f"{told}\n"


@pytest.mark.parametrize("system_state", ["running", "stopping"])
def test_without_pystemd_systemctl_answers_and_the_journal_says_so_once(
    machine: Tree, monkeypatch: pytest.MonkeyPatch, system_state: str
) -> None:
    machine.mark("running", OTHER)
    machine.lease("10.52.0.2")
    with journald(machine, monkeypatch) as listener:
        away = "rm -r /usr/lib/python3/dist-packages/pystemd*"
        systemd = standing_in(machine, system_state)
        assert answer(machine, away, systemd, "cni-lease-reset boot", "cni-lease-reset shutdown") == ""
        entries = list(received(listener))
    assert [entry["MESSAGE"] for entry in entries if "pystemd" in entry["MESSAGE"]] == [
        "D-Bus cannot be asked (ModuleNotFoundError: No module named 'pystemd'); asked systemctl instead"
    ]
    assert [entry["CNI_LEASES_CLEARED"] for entry in entries if "CNI_VERDICT" in entry] == ["1"]
    assert ("state=clean\n" in machine.marker()) is (system_state == "stopping")
    assert system_state == "stopping" or machine.marker() == ""


UNFIT = {
    "import pystemd raises SystemError": ("dbuslib", "raise SystemError('initialization failed')"),
    "import pystemd raises ValueError": (
        "dbuslib",
        "raise ValueError('size changed, may indicate binary incompatibility')",
    ),
    "a module that is missing": ("dbuslib", "import pystemd.nothing"),
    "no apply_signature": ("dbuslib", "class DBus:\n    pass"),
    "it aborts": ("dbuslib", "import os\nos.abort()"),
    "it ends the process": ("dbuslib", "raise SystemExit(7)"),
}


@pytest.mark.parametrize("way", UNFIT)
def test_a_pystemd_that_does_not_fit_is_as_none(machine: Tree, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Built for another libsystemd or Python, or too old: boot, status and shutdown ask systemctl."""
    machine.mark("running", OTHER)
    machine.lease("10.52.0.2")
    module, text = UNFIT[way]
    there = "/usr/lib/python3/dist-packages/pystemd"
    files = {"__init__": "", module: text}
    written = [f"cat >{there}/{name}.py <<'EOF'\n{text}\nEOF" for name, text in files.items()]
    with journald(machine, monkeypatch) as listener:
        script = (f"rm -r {there}*", f"mkdir {there}", *written, standing_in(machine, "stopping"))
        shown = answer(machine, *script, "cni-lease-reset boot", "cni-lease-reset status", "cni-lease-reset shutdown")
        entries = list(received(listener))
    assert "This boot   cleared: k8s-pod-network: unclean shutdown" in shown
    assert "state=clean\n" in machine.marker(), "systemctl said that the system goes down"
    asked = [entry["CNI_REASON"] for entry in entries if "asked systemctl instead" in entry["CNI_REASON"]]
    assert len(asked) == 1, entries
    assert asked[0].startswith("D-Bus cannot be asked (")


def test_a_run_leaves_no_byte_code_that_no_package_owns(machine: Tree) -> None:
    """After an update of Python the package's own is of the old one; the next upgrade would leave the new one behind."""
    ours = "/usr/lib/cni-lease-reset"
    left = answer(
        machine,
        f"find {ours} -name '*.pyc' -delete",
        "cni-lease-reset config >/dev/null",
        "cni-lease-reset status >/dev/null",
        f"find {ours} -name '*.pyc'",
        f"/usr/bin/python3 -c 'import sys; sys.path[:0] = [\"{ours}\"]; import cni_lease_reset.cli'",  # the control
        f"find {ours} -name '*.pyc' | grep -c /cli",
    )
    assert left == "1\n"
