"""Nodes on throw-away overlays of the cached image; the summary; what is kept and shown when a test fails."""

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import summary
from machine import Image
from node import DEB, PATIENCE, PATIENT, Node

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
CACHE = CHECKOUT / ".cache/vm"
SUITE = os.environ.get("SUITE") or "trixie"
ROWS: list[summary.Row] = []  # of the test that runs
ALL: list[summary.Row] = []  # of all tests of all workers
TOOK: dict[str, float] = {}  # seconds, by test
FAILED: set[str] = set()  # tests
PASSED: dict[str, summary.Result] = {}
NODES: list[Node] = []  # those that run now
NewNode = Callable[..., Node]


@contextmanager
def locked(name: str, how: int) -> Iterator[None]:
    """Hold a lock against the other workers."""
    with open(CACHE / f"{name}.lock", "w") as file:
        fcntl.flock(file, how)
        yield


@pytest.fixture(autouse=True)
def room(request: pytest.FixtureRequest, installed: Image) -> Iterator[None]:
    """Tests share the machine, two at a time; one that measures time has it for itself."""
    alone = request.node.get_closest_marker("alone") is not None
    with locked("room", fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
        yield


@pytest.fixture(scope="session")
def bare() -> Image:
    """A Debian with everything but the product."""
    with locked("image", fcntl.LOCK_EX):
        built = subprocess.run([HERE / "image"], check=True, stdout=subprocess.PIPE, text=True)
        folder = Path(built.stdout.splitlines()[-1])
        (CACHE / f"{SUITE}-versions").write_bytes((folder / "versions").read_bytes())  # for the page
    return Image(folder / "disk.img", "raw", folder / "vmlinuz", folder / "initrd")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with the Debian package, and a newer release of it, as `make deb` builds them."""
    return _built("deb", "*+{}_all.deb", tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of `make rpm`."""
    return _built("rpm", "*-{}.noarch.rpm", tmp_path_factory.mktemp("rpm"))


def _built(kind: str, called: str, folder: Path) -> Path:
    for release in ("1", "2"):
        environment = {**os.environ, "RELEASE": release, "DIST": str(folder)}
        with locked("image", fcntl.LOCK_EX):  # git locks its index
            build = CHECKOUT / f"packaging/{kind}/build"
            subprocess.run([build], check=True, stdout=subprocess.DEVNULL, env=environment)
        next(folder.glob(called.format(release))).rename(folder / f"release-{release}.{kind}")
    disk = folder / "packages.tar"
    tar = ["tar", "--mtime=@0", "--owner=0", "--group=0", "--mode=644", "-cf", disk.name]
    subprocess.run([*tar, f"release-1.{kind}", f"release-2.{kind}"], check=True, cwd=folder)
    return disk


@pytest.fixture(scope="session")
def installed(bare: Image, packages: Path) -> Image:
    """The same with the product installed and enabled, down after a clean shutdown, no pods yet; cached."""
    recipe = hashlib.sha256(packages.read_bytes() + Path(__file__).read_bytes() + bytes(bare.disk)).hexdigest()
    done = CACHE / f"{SUITE}-installed-{recipe[:16]}"
    with locked("image", fcntl.LOCK_EX):
        if not done.exists():
            work = Path(tempfile.mkdtemp(prefix="build.", dir=CACHE))
            _install_into(Node(work, bare, *drive(packages, "packages"), rows=[]))
            work.rename(done)
    return bare._replace(disk=done / "disk.qcow2", disk_format="qcow2")


def _install_into(node: Node) -> None:
    try:
        node.start("lab.pods=0")
        install(node, DEB)
        # Without KVM, on a busy machine, a second's work takes minutes; the tests that are about time take this away.
        node.write(PATIENCE, PATIENT)
        node.pods()  # RKE2 is up, and the pods' image imported
        node.goes_down("systemctl poweroff", boot_again=False)
    finally:
        node.cut()


def install(node: Node, command: str) -> None:
    """Install the package in a running machine that has the packages' disk."""
    node.run("mkdir -p /opt/packages && tar -C /opt/packages -xf /dev/disk/by-id/virtio-packages")
    node.run(command.format(1))


def drive(path: Path, name: str) -> tuple[str, ...]:
    """One more disk: /dev/disk/by-id/virtio-NAME."""
    return (
        *("-drive", f"file={path},if=none,id={name},format=raw,cache=writeback"),
        *("-device", f"virtio-blk-pci,drive={name},serial={name}"),
    )


@pytest.fixture
def new_node(tmp_path: Path) -> Iterator[NewNode]:
    """Make nodes that are gone when the test ends, however it ends."""

    def make(image: Image, *devices: str, name: str = "node1") -> Node:
        NODES.append(Node(tmp_path / name, image, *devices, rows=ROWS))
        return NODES[-1]

    yield make
    while NODES:
        keep_journal(NODES[-1])
        NODES.pop().cut()


@pytest.fixture
def node(installed: Image, new_node: NewNode) -> Node:
    """A node with the product, not started yet."""
    return new_node(installed)


@pytest.fixture
def cni_disk(tmp_path: Path) -> Path:
    """A disk of its own for /var/lib/cni (lab.cni_disk=rw), as image-based systems have it; small, soon full."""
    disk = tmp_path / "cni.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0", disk, "32M"], check=True)
    return disk


@pytest.fixture
def two_disk_node(installed: Image, new_node: NewNode, cni_disk: Path) -> Node:
    """A node whose /var/lib/cni is that disk, if told so at boot."""
    return new_node(installed, *drive(cni_disk, "cni"))


def keep_journal(node: Node) -> str:
    """Keep the journal of all boots beside the console logs; a machine that hangs has none to give."""
    journal = ""
    with suppress(OSError, AssertionError, AttributeError, ValueError):
        journal = node.run("journalctl --no-pager -o short-monotonic", seconds=120)
        (node.folder / "journal.txt").write_text(journal)
    return journal


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of console and journal where a test failed; hand over the rows of one that has ended."""
    report = yield
    if call.when == "teardown":
        report.user_properties += [("row", row.as_json()) for row in ROWS]
        ROWS.clear()
    if call.when == "call" and call.excinfo is not None:
        for node in NODES:
            name = node.folder.name
            with suppress(OSError):
                report.sections.append((f"end of {name}'s console", node.console[-3000:]))
            report.sections.append((f"end of {name}'s journal", keep_journal(node)[-6000:]))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the rows, from the workers too."""
    test = report.nodeid.rpartition("::")[2]
    if report.when == "call":  # before it, disks are built, and others have the machine
        TOOK[test] = report.duration
    if not report.passed:
        FAILED.add(test)
    if report.when == "teardown":
        rows = [summary.from_json(str(text)) for name, text in report.user_properties if name == "row"]
        ALL.extend(rows)
        if test not in FAILED:
            PASSED[test] = summary.result(rows, commit=COMMIT, seconds=TOOK[test])


def _commit() -> str:
    """What is tried; that an earlier part of the same run wrote its results is no change."""
    git = ["git", "-C", str(CHECKOUT)]
    changed = [
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        ":!docs/VM-RESULTS.md",
        f":!{summary.RESULTS}",
    ]
    commit, dirty = (
        subprocess.run([*git, *each], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        for each in (["rev-parse", "--short=8", "HEAD"], changed)
    )
    return f"{commit}-dirty" if dirty else commit


COMMIT = _commit()  # as it began; who goes on working in this checkout meanwhile does not change it


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table; what passed goes into the suite's results and the page."""
    if ALL:
        terminalreporter.write_line("")
        terminalreporter.write(summary.as_markdown(ALL))
    if PASSED and "PYTEST_XDIST_WORKER" not in os.environ:  # a worker knows only its own
        (versions,) = (CACHE / f"{SUITE}-versions").read_text().splitlines()
        summary.keep(CHECKOUT, SUITE, PASSED, versions=versions)
