"""A node tree in a temporary directory, the real host-local plugin, and what more than one file of tests needs."""

import fcntl
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest
from tree import OTHER, PLUGIN, SANDBOX, THIS, HostLocal, Tree

from cni_lease_reset import service
from cni_lease_reset.core.events import Entry
from cni_lease_reset.core.findings import Outcome
from cni_lease_reset.core.model import BootId
from cni_lease_reset.edges.journald import Journal
from cni_lease_reset.edges.systemd import Manager, Runtime, Unit

# A loaded machine is no fault of ours.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

__all__ = [
    "OTHER",
    "PLUGIN",
    "SANDBOX",
    "THIS",
    "HostLocal",
    "Kept",
    "Systemd",
    "Tree",
    "tool",
]  # as the tests know them
TOP = Path(__file__).parent.parent
GOLDEN = TOP / "tests/golden"

NEXT = BootId("33333333-3333-4333-8333-333333333333")
K3S = "run/k3s/containerd/containerd.sock"


def tool(name: str) -> str:
    """The path of a tool that not every distribution has; without it the test is skipped."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:{TOP}/.cache")  # where tools/system-packages unpacks promtool
    return path or pytest.skip(f"{name} is not to be had here")


# Where every tool can be had nothing is skipped but these tests, for these reasons: a set-up that lost one must not pass.
COMPLETE = ("debian 12", "debian 13")
NO_LAB = "no machine can be started here"
MAY_BE_SKIPPED = {"tests/lab/": NO_LAB}


def _may_be_skipped(report: pytest.TestReport | pytest.CollectReport) -> bool:
    why = report.longreprtext
    return any(report.nodeid.startswith(where) and reason in why for where, reason in MAY_BE_SKIPPED.items())


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    release = platform.freedesktop_os_release()
    if reporter is None or f"{release['ID']} {release.get('VERSION_ID')}" not in COMPLETE:
        return
    skipped = {report.nodeid for report in reporter.stats.get("skipped", ()) if not _may_be_skipped(report)}
    if skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"\nSkipped, and may not be on {release['PRETTY_NAME']}: {', '.join(sorted(skipped))}")


def everything(root: Path) -> dict[str, tuple[object, ...]]:
    """All that stat tells of everything below a directory but when it was read, and what each file holds."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (root, *sorted(root.rglob("*"))):
        is_file = path.is_file() and not path.is_symlink()
        content = path.read_bytes() if is_file else os.readlink(path) if path.is_symlink() else None
        told = path.lstat()
        times = (told.st_mtime_ns, told.st_ctime_ns)  # no chmod, chown or rename to and fro leaves the second alone
        owner = (told.st_mode, told.st_uid, told.st_gid)
        found[str(path)] = (*owner, told.st_ino, told.st_nlink, told.st_size, *times, content)
    return found


class Systemd(Manager):
    """A systemd that answers as told; the real one has no place below a directory."""

    def __init__(
        self,
        states: dict[str, str] | None = None,
        *,
        down: bool | None = True,
        remark: str | None = None,
        ran: Sequence[str] = (),
        starting: bool = True,
        exists: bool = True,
    ) -> None:
        self.states, self.down, self.remark = {} if states is None else states, down, remark
        self.ran, self.starting, self.exists = ran, starting, exists

    def runtime(self, units: Sequence[str]) -> tuple[Runtime | None, str | None]:
        if self.down is None:
            return None, self.remark
        found = (Unit(self.states.get(unit, "inactive"), self.exists, has_run=unit in self.ran) for unit in units)
        return Runtime(tuple(found), starting=self.starting), self.remark

    def going_down(self) -> tuple[bool | None, str | None]:
        return self.down, self.remark


class Kept(Journal):
    """A journal that keeps its entries."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def send(self, entry: Entry) -> None:
        self.entries.append(entry)

    @property
    def verdicts(self) -> list[dict[str, str]]:
        return [dict(entry.fields) for entry in self.entries if "CNI_VERDICT" in dict(entry.fields)]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture(scope="module")
def lasting_tree() -> Iterator[Tree]:
    """A tree for all the examples of hypothesis."""
    with TemporaryDirectory() as directory:
        yield Tree(Path(directory))


@pytest.fixture
def journal() -> Kept:
    return Kept()


@pytest.fixture
def host_local(tree: Tree) -> HostLocal:
    return HostLocal(tree)


def sandbox(number: int) -> str:
    return f"{number:064x}"


def live(tree: Tree, number: int, namespace: str = "k8s.io") -> None:
    tree.shim(namespace, 1000 + number, sandbox(number))


@pytest.fixture
def pods(tree: Tree) -> HostLocal:
    """A pool in which 20 leases leaked and 8 pods live, one of them only by its task directory."""
    plugin = HostLocal(tree)
    for number in range(28):
        plugin.add(sandbox(number))
    tree.age()
    for number in range(20, 27):
        live(tree, number)
    (tree.root / "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io" / sandbox(27)).mkdir(parents=True)
    return plugin


@pytest.fixture
def reset(tree: Tree) -> str:
    """What a boot after a power cut set aside."""
    tree.mark("running", OTHER)
    for number in range(2, 7):
        tree.lease(f"10.52.0.{number}")
    tree.lease("fd00::2", network="cbr0")
    service.boot(tree.node, Systemd(), Kept())
    assert not tree.leases()
    return next((tree.state / "set-aside").iterdir()).name


@contextmanager
def held_lock(tree: Tree, network: str = "k8s-pod-network") -> Iterator[None]:
    """Hold host-local's lock, as a plugin at work does."""
    with (tree.data / network / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def failing(name: str, monkeypatch: pytest.MonkeyPatch, when: Callable[[tuple[object, ...]], bool], code: int) -> None:
    """Let one call of ``os`` fail as a full or broken disk would, where the condition holds."""
    real = getattr(os, name)

    def call(*arguments: object, **options: object) -> object:
        if when(arguments):
            raise OSError(code, os.strerror(code), str(arguments[0]))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)


def boot(tree: Tree, journal: Kept, manager: Systemd | None = None) -> Outcome:
    before = len(journal.verdicts)
    outcome = service.boot(tree.node, manager or Systemd(), journal)
    assert len(journal.verdicts) == before + 1, "each run leaves exactly one verdict entry"
    assert "CNI_VERDICT" in dict(journal.entries[-1].fields), "and it is the last of ours"
    may_be_long = outcome.result == "refused" or outcome.unlisted  # it says what to do, or names other networks
    assert len(journal.entries[-1].message) <= (250 if may_be_long else 100)
    return outcome
