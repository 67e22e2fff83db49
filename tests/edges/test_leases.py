"""host-local's leases: which files are some, and which networks are ours."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import OTHER, SANDBOX, THIS, Kept, Systemd, Tree, boot, failing
from machine import Machine
from programs import command
from reported import done, gathered

from cni_lease_reset import service
from cni_lease_reset.commands import recover, restore
from cni_lease_reset.core import findings
from cni_lease_reset.core.findings import Lease
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges import durable, leases


def test_a_network_beside_ours_is_untouched_and_counted(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    for number in range(111):
        tree.lease(f"10.60.0.{number}", network="macvlan-a")
    outcome = boot(tree, journal)
    assert outcome.unlisted == (("macvlan-a", 111),)
    assert "not configured: macvlan-a 111" in journal.entries[-1].message
    assert journal.entries[0].message == "Network macvlan-a holds 111 leases, and no setting names it."
    assert len(tree.leases("macvlan-a")) == 111


@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_what_stands_in_a_networks_place_is_skipped_and_does_not_count(tree: Tree, journal: Kept, kind: str) -> None:
    tree.mark("running")
    elsewhere = tree.lease("10.52.0.2", network="elsewhere")
    if kind == "symlink":
        tree.network.symlink_to("elsewhere")
    else:
        tree.network.write_text("")
    assert boot(tree, journal).result == "nothing-due"
    assert "is skipped" in journal.entries[0].message
    assert elsewhere.exists()
    assert THIS in tree.marker()


def test_what_is_no_lease_stays(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    for name in ("last_reserved_ip.0", "lock", "notes.txt", "10.52.0.999", "10.52.0"):
        tree.lease(name, "")
    (tree.network / "10.52.0.7").mkdir()
    os.mkfifo(tree.network / "10.52.0.8")
    (tree.network / "10.52.0.9").symlink_to("/etc/passwd")
    (tree.network / "\udcff\n\x1b[31m").touch()
    boot(tree, journal)
    assert tree.set_aside() == {"10.52.0.2"}


def test_without_a_data_directory_all_is_quiet(tree: Tree, journal: Kept) -> None:
    assert boot(tree, journal).result == "nothing-due"
    assert [entry.priority for entry in journal.entries] == [6]


def misplaced(tree: Tree, lock: str) -> None:
    """Something else in the place of a network's lock."""
    if lock == "symlink":
        (tree.network / "lock").symlink_to(tree.root / "victim")
    else:
        (tree.network / "lock").mkdir()


@pytest.mark.parametrize("lock", ["symlink", "directory"])
def test_a_lock_that_is_no_file_is_skipped(tree: Tree, journal: Kept, lock: str) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    misplaced(tree, lock)
    boot(tree, journal)
    assert journal.entries[0].message_id == findings.MessageId.NETWORK_SKIPPED
    assert journal.entries[0].message.startswith("Network k8s-pod-network is skipped: 'lock': ")
    said = "Unclean shutdown: nothing set aside (k8s-pod-network due and skipped), 1 lease kept."
    assert (journal.entries[1].message, journal.entries[1].priority) == (said, 5)
    assert not (tree.root / "victim").exists()
    assert tree.leases() == {"10.52.0.2"}
    [attention] = gathered(tree).attention
    assert attention == (
        "Network k8s-pod-network is skipped: its lock is no file. "
        "Remove '/var/lib/cni/networks/k8s-pod-network/lock', host-local makes a new one"
    )
    done = command(tree.node, "status", "--check")
    assert done.returncode == 3


@pytest.mark.parametrize("lock", ["symlink", "directory"])
def test_beside_a_network_that_is_skipped_the_others_are_done(tree: Tree, journal: Kept, lock: str) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.lease("10.53.0.2", network="cbr0")
    misplaced(tree, lock)
    assert boot(tree, journal).result == "cleared"
    assert "1 lease set aside" in journal.entries[-1].message
    assert "is skipped" in journal.entries[0].message


@pytest.mark.parametrize("lock", ["symlink", "directory"])
@pytest.mark.parametrize("why", ["clean", "never", "same boot"])
def test_where_nothing_is_due_nothing_is_skipped(tree: Tree, journal: Kept, lock: str, why: str) -> None:
    """But status points it out before it matters."""
    tree.mark("running" if why == "never" else "clean", THIS if why == "same boot" else OTHER)
    tree.config("clear_when: never\n" if why == "never" else "")
    tree.lease("10.52.0.2")
    misplaced(tree, lock)
    boot(tree, journal)
    assert [entry.message for entry in journal.entries if "skipped" in entry.message] == []
    assert any("its lock is no file" in each for each in gathered(tree).attention)


@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_attention_names_what_stands_in_a_networks_place(tree: Tree, journal: Kept, kind: str) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2", network="elsewhere")
    if kind == "symlink":
        tree.network.symlink_to("elsewhere")
    else:
        tree.network.write_text("")
    boot(tree, journal)
    assert journal.entries[-1].message.startswith(
        "Unclean shutdown: nothing set aside (k8s-pod-network due and skipped), 0 leases kept"
    )
    report = gathered(tree)
    assert report.attention == (
        "Network k8s-pod-network is skipped: not a directory (a symbolic link is not followed). "
        "Put a directory there, or take the name out of 'networks'",
    )
    assert report.unread == ()


def test_attention_names_a_network_that_cannot_be_read(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    done(tree)
    tree.lease("10.52.0.2")
    tree.lease("10.53.0.2", network="cbr0")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "k8s-pod-network", errno.EIO)
    report = gathered(tree)
    said = "Network k8s-pod-network cannot be dealt with: 'k8s-pod-network': Input/output error"
    assert [each for each in report.attention if "k8s-pod-network" in each] == [said]
    assert [stock.name for stock in report.stocks] == ["cbr0"]


class TestOnAFileSystemWithoutLocks:
    """Host-local asks for its lock and ignores the answer; so the next best is to do what is due, and to say so."""

    @pytest.fixture(autouse=True, params=[errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP])
    def no_locks(self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
        """Files have none; a directory, such as ours, is another matter: its lock never leaves the kernel."""
        flock = fcntl.flock

        def refused(descriptor: int, operation: int) -> None:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(request.param, os.strerror(request.param))
            flock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", refused)
        self.remark = (
            "Network k8s-pod-network was dealt with without host-local's lock, for its file system has none "
            f"({os.strerror(request.param)}), ignoring"
        )

    @pytest.fixture
    def tree(self, tree: Tree) -> Tree:
        Machine(tree.root)
        tree.mark("running")
        tree.lease("10.52.0.2")
        return tree

    @pytest.mark.parametrize("rehearsal", [True, False])
    def test_boot_does_what_is_due(self, tree: Tree, journal: Kept, rehearsal: bool) -> None:
        node = tree.node._replace(rehearsal=rehearsal)
        if rehearsal:
            tree.lease("lock", "")
        outcome = service.boot(node, Systemd(), journal)
        assert (outcome.result, outcome.total.cleared) == ("cleared", 1)
        assert [remark.text for remark in outcome.remarks] == [self.remark]
        assert rehearsal or THIS in tree.marker()

    def test_recover_does_too(self, tree: Tree, journal: Kept) -> None:
        said: list[str] = []
        assert recover.work(tree.node, journal, said.append, crowded=False) is None
        assert "k8s-pod-network: 1 lease set aside as 1-" in said[0]
        assert self.remark in [entry.message for entry in journal.entries]

    def test_and_so_does_restore(self, tree: Tree, journal: Kept) -> None:
        reset = service.boot(tree.node, Systemd(), Kept()).reset
        assert reset is not None
        assert restore.restore(tree.node, journal, reset) == "k8s-pod-network: 1 put back, 0 left\n"
        assert tree.leases() == {"10.52.0.2"}
        assert self.remark in [entry.message for entry in journal.entries]


def test_the_lock_is_opened_for_writing_as_nfs_wants_it(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFSv4 gives an exclusive lock only to whoever may write the file: EBADF."""
    flock = fcntl.flock
    asked: list[int] = []

    def nfs(descriptor: int, operation: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            asked.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
            if asked[-1] == os.O_RDONLY:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", nfs)
    tree.mark("running")
    tree.lease("10.52.0.2")
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.remarks) == ("cleared", ())
    assert asked
    assert set(asked) == {os.O_RDWR}


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOENT])
def test_without_the_lock_nothing_moves(tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "lock", code)
    assert boot(tree, journal).result == "failed"
    assert tree.leases() == {"10.52.0.2"}


def test_a_symlinked_data_directory_is_not_followed(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    elsewhere = tree.root / "elsewhere/k8s-pod-network/10.52.0.2"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.touch()
    tree.data.symlink_to(tree.root / "elsewhere")
    outcome = service.boot(tree.node, Systemd(), journal)
    assert (outcome.result, elsewhere.exists()) == ("failed", True)
    assert "Not a directory, or a symbolic link" in outcome.why


def test_a_network_that_cannot_be_listed_fails_and_the_others_are_done(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.lease("10.53.0.2", network="cbr0")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "k8s-pod-network", errno.EIO)
    outcome = service.boot(tree.node, Systemd(), journal)
    assert (outcome.result, outcome.total.cleared) == ("failed", 1)


def test_a_lease_that_a_del_removes_meanwhile_is_left_out(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3")
    real = durable.content

    def content(parent: int, name: str, limit: int) -> bytes:
        if name == "10.52.0.2":
            os.unlink(name, dir_fd=parent)
        return real(parent, name, limit)

    monkeypatch.setattr(durable, "content", content)
    assert len(leases.survey(tree.node, Config()).networks[0].found) == 1


@pytest.mark.parametrize("code", [errno.EUCLEAN, errno.EIO, errno.EPERM, errno.EACCES])
@pytest.mark.parametrize("mark", ["running", "clean"])
def test_a_lease_that_cannot_be_read_is_counted_and_no_trouble_of_its_network(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, mark: str, code: int
) -> None:
    tree.mark(mark)
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3", "")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "10.52.0.2", code)
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.total.found, outcome.total.torn) == ("cleared", 2, 1)
    assert tree.set_aside() == ({"10.52.0.3"} if mark == "clean" else {"10.52.0.2", "10.52.0.3"})


@pytest.mark.parametrize("code", [errno.EUCLEAN, errno.EIO, errno.EPERM, errno.EACCES])
@pytest.mark.parametrize("mark", ["running", "clean"])
def test_a_lease_that_cannot_be_looked_at_is_counted_too(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, mark: str, code: int
) -> None:
    """Where the directory does not tell which entries are files: a file system without file types."""
    tree.mark(mark)
    for number in range(2, 62):
        tree.lease(f"10.52.0.{number}", "" if number == 3 else f"{SANDBOX}\r\neth0")
    (tree.network / "10.52.0.99").mkdir()
    untyped(monkeypatch, "10.52.0.2", code)
    failing("open", monkeypatch, lambda arguments: arguments[0] == "10.52.0.2", code)
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.total.found, outcome.total.torn) == ("cleared", 60, 1)
    assert len(tree.set_aside()) == (1 if mark == "clean" else 60)


def untyped(monkeypatch: pytest.MonkeyPatch, broken: str, code: int) -> None:
    """Let a directory tell no types, so that each entry needs a stat, of which one fails."""
    scandir = os.scandir

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self._entry = entry.name, entry

        def is_file(self, *, follow_symlinks: bool) -> bool:
            if self.name == broken:
                raise OSError(code, os.strerror(code), self.name)
            return self._entry.is_file(follow_symlinks=follow_symlinks)

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            return self._entry.is_dir(follow_symlinks=follow_symlinks)

    @contextmanager
    def listed(directory: int | str) -> Iterator[Iterator[Entry | os.DirEntry[str]]]:
        with scandir(directory) as entries:  # pathlib's are paths: what a test itself looks at
            yield (Entry(entry) for entry in entries) if isinstance(directory, int) else entries

    monkeypatch.setattr(os, "scandir", listed)


def test_a_disk_that_opens_no_file_is_the_networks_trouble(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "10.52.0.2", errno.EMFILE)
    assert boot(tree, journal).result == "failed"


def test_a_lease_has_its_files_time(tree: Tree) -> None:
    os.utime(tree.lease("10.52.0.10"), (7, 7))
    (network,) = leases.survey(tree.node, Config()).networks
    assert network.found == (Lease("10.52.0.10", SANDBOX, torn=False, written=7.0),)


@pytest.mark.parametrize("code", [errno.EUCLEAN, errno.EIO, errno.EPERM, errno.EACCES])
def test_a_lease_that_cannot_be_read_is_nobodys_and_the_others_are_read(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "10.52.0.2", code)
    (network,) = leases.survey(tree.node, Config()).networks
    found = {lease.address: (lease.owner, lease.torn) for lease in network.found}
    assert found == {"10.52.0.2": (None, False), "10.52.0.3": (SANDBOX, False)}


def test_an_error_of_the_file_system_is_no_leases_own(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.lease("10.52.0.2")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "10.52.0.2", errno.EMFILE)
    survey = leases.survey(tree.node, Config())
    assert survey.networks == ()
    assert [(each.network, each.again) for each in survey.troubles] == [("k8s-pod-network", True)]
