"""Nodes on throw-away overlays of the cached image; the summary; what is kept and shown when a test fails."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import summary
from machine import Image
from node import PATIENCE, UNIT, Node

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
CACHE = CHECKOUT / ".cache/vm"
ROWS: list[summary.Row] = []
NODES: list[Node] = []  # those that run now
NewNode = Callable[..., Node]


@pytest.fixture(scope="session")
def bare() -> Image:
    """A Debian with everything but the product."""
    built = subprocess.run([HERE / "image"], check=True, stdout=subprocess.PIPE, text=True)
    folder = Path(built.stdout.splitlines()[-1])
    return Image(folder / "disk.img", "raw", folder / "vmlinuz", folder / "initrd")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with the package, and a newer release of it, as `make rpm` builds them."""
    folder = tmp_path_factory.mktemp("packages")
    for release in ("1", "2"):
        build = [CHECKOUT / "packaging/rpm/build"]
        built = subprocess.run(
            build, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "RELEASE": release}
        )
        rpm = next(line for line in built.stdout.splitlines() if line.endswith(f"-{release}.noarch.rpm"))
        shutil.copy(CHECKOUT / rpm, folder / f"release-{release}.rpm")
    for leftover in (CHECKOUT / "dist").glob("*-2.*.rpm"):  # dist/ is for packages that people asked for
        leftover.unlink()
    disk = folder / "packages.tar"
    subprocess.run(
        [
            *["tar", "--mtime=@0", "--owner=0", "--group=0", "--mode=644", "-C"],
            folder,
            "-cf",
            disk,
            "release-1.rpm",
            "release-2.rpm",
        ],
        check=True,
    )
    return disk


@pytest.fixture(scope="session")
def installed(bare: Image, packages: Path) -> Image:
    """The same with the product installed and enabled, down after a clean shutdown, no pods yet; cached."""
    recipe = hashlib.sha256(packages.read_bytes() + Path(__file__).read_bytes() + bytes(bare.disk)).hexdigest()
    done = CACHE / f"installed-{recipe[:16]}"
    if not done.exists():
        work = Path(tempfile.mkdtemp(prefix="build.", dir=CACHE))
        _install_into(Node(work, bare, *drive(packages, "packages"), rows=[]))
        work.rename(done)
    return bare._replace(disk=done / "disk.qcow2", disk_format="qcow2")


def _install_into(node: Node) -> None:
    try:
        node.start("lab.pods=0")
        install(node)
        node.run(f"systemctl enable {UNIT}")
        # Without KVM, on a busy machine, a second's work takes minutes; the tests that are about time take this away.
        node.write(PATIENCE, "[Service]\nTimeoutStartSec=10min\nTimeoutStopSec=10min\n")
        node.pods()  # RKE2 is up, and the pods' image imported
        node.goes_down("systemctl poweroff", boot_again=False)
    finally:
        node.cut()


def install(node: Node, release: int = 1) -> None:
    """Install or update the package in a running machine that has the packages' disk."""
    node.run("mkdir -p /opt/packages && tar -C /opt/packages -xf /dev/disk/by-id/virtio-packages")
    # rpm's database knows nothing of Debian's own packages, hence --nodeps.
    node.run(f"rpm -U --nodeps /opt/packages/release-{release}.rpm")


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
    """Show the end of console and journal where a test failed."""
    report = yield
    if call.when == "call" and call.excinfo is not None:
        for node in NODES:
            name = node.folder.name
            with suppress(OSError):
                report.sections.append((f"end of {name}'s console", node.console[-3000:]))
            report.sections.append((f"end of {name}'s journal", keep_journal(node)[-6000:]))
    return report


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the clock."""
    session.config.stash[_BEGAN] = time.monotonic()


_BEGAN = pytest.StashKey[float]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Print the table, and write it; that of a full run that passed is kept with the sources."""
    if not ROWS:
        return
    git = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(git, stdout=subprocess.PIPE, text=True).stdout.strip() or "unknown"
    minutes = (time.monotonic() - config.stash[_BEGAN]) / 60
    about = f"`make vm-test` on commit {commit}: {minutes:.0f} minutes, {os.cpu_count()} {platform.machine()} cores without KVM."
    page = summary.write(ROWS, CACHE / "summary.md", heading=about)
    if os.environ.get("VM_FULL") and exitstatus == pytest.ExitCode.OK:
        summary.write(ROWS, CHECKOUT / "docs/VM-RESULTS.md", heading=f"# Power cuts: the last full run\n\n{about}")
    terminalreporter.write_line("")
    terminalreporter.write(page)
