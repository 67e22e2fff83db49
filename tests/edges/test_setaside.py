"""Leases are set aside under host-local's own lock, beside the real host-local."""

import errno
import fcntl
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from conftest import NEXT, THIS, HostLocal, Kept, Systemd, Tree, boot, failing
from programs import command
from reported import gathered

from cni_lease_reset import service
from cni_lease_reset.core.findings import MessageId
from cni_lease_reset.edges.systemd import Runtime


def test_round_robin_goes_on_behind_the_last_reserved_address(tree: Tree, journal: Kept, host_local: HostLocal) -> None:
    tree.mark("running")
    assert [host_local.add(f"old{n}") for n in range(3)] == ["10.52.0.2", "10.52.0.3", "10.52.0.4"]
    boot(tree, journal)
    assert host_local.add("new") == "10.52.0.5"


def test_a_late_del_of_an_old_sandbox_changes_nothing(tree: Tree, journal: Kept, host_local: HostLocal) -> None:
    tree.mark("running")
    host_local.add("old")
    boot(tree, journal)
    address = host_local.add("new")
    host_local.delete("old")
    assert tree.leases() == {address}


def test_both_address_families_are_set_aside(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    HostLocal(tree, ("10.52.0.0/24", "fd00:52::/64")).add("old")
    assert boot(tree, journal).total.cleared == 2
    assert {"10.52.0.2", "fd00:52::2"} == tree.set_aside()
    assert {path.name for path in tree.network.iterdir()} == {"last_reserved_ip.0", "last_reserved_ip.1", "lock"}


def test_a_held_lock_leaves_its_network_for_the_next_boot_and_the_others_are_done(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.lease("10.53.0.2", network="cbr0")
    (tree.network / "lock").touch()
    holder = (
        "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", holder, str(tree.network / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert boot(tree, journal).result == "failed"
        process.communicate(b"\n")
    assert tree.leases() == {"10.52.0.2"}
    assert tree.leases("cbr0") == set()
    assert tree.marker() == ""
    tree.next_kernel(NEXT)
    assert boot(tree, journal).total.cleared == 1


def test_the_lock_is_host_locals_own(tree: Tree, journal: Kept, host_local: HostLocal) -> None:
    tree.mark("running")
    host_local.add("old")
    with open(tree.network / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert boot(tree, journal).result == "failed"
    assert tree.leases() == {"10.52.0.2"}


def test_a_storm_of_adds_beside_boot_hands_no_address_out_twice(tree: Tree) -> None:
    tree.mark("running")
    plugin = HostLocal(tree)
    for number in range(20):
        plugin.add(f"old{number}")
    locked = threading.Event()

    class Storm(Systemd):
        """Answers the guard's question, which comes while host-local's lock is held."""

        def runtime(self, units: Sequence[str]) -> tuple[Runtime | None, str | None]:
            locked.set()
            return super().runtime(units)

    given: list[str] = []

    def storm(name: str) -> None:
        locked.wait()
        given.extend(plugin.add(f"{name}-{number}") for number in range(10))

    threads = [threading.Thread(target=storm, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    service.boot(tree.node, Storm(), Kept())
    for thread in threads:
        thread.join()
    assert len(given) == len(set(given)) == 40
    assert set(given) <= tree.leases()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EXDEV, errno.EMFILE, errno.ESTALE])
def test_a_network_in_which_nothing_can_be_moved_fails_the_boot_and_the_next_one_tries_again(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """An error of the file system ends the moves at the first; one that went before stays where it is."""
    tree.mark("running")
    for number in range(2, 62):
        tree.lease(f"10.52.0.{number}")
    with monkeypatch.context() as broken:
        failing("rename", broken, lambda it: str(it[0]).startswith("10.52.") and len(tree.set_aside()) == 3, code)
        outcome = service.boot(tree.node, Systemd(), journal)
    assert (outcome.result, outcome.total.cleared, outcome.remarks) == ("failed", 3, ())
    assert len(tree.leases()) == 57
    assert tree.marker() == ""
    tree.next_kernel(NEXT)
    assert service.boot(tree.node, Systemd(), journal).judgement.verdict == "unknown"
    assert len(tree.set_aside()) == 60


OF_ONE_LEASE = pytest.mark.parametrize("code", [errno.EUCLEAN, errno.EPERM, errno.EIO, errno.EACCES])


@OF_ONE_LEASE
@pytest.mark.parametrize("call", ["rename", "open"])
def test_what_is_wrong_with_one_lease_is_its_own_matter(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    tree.mark("running")
    for number in range(2, 62):
        tree.lease(f"10.52.0.{number}")
    failing(call, monkeypatch, lambda arguments: arguments[0] == "10.52.0.7", code)
    outcome = boot(tree, journal)
    if call != "rename":  # it cannot be read, and is moved all the same
        assert (outcome.result, outcome.total.cleared, outcome.remarks) == ("cleared", 60, ())
        return
    assert (outcome.result, outcome.total.cleared, outcome.total.kept) == ("cleared", 59, 1)
    assert tree.leases() == {"10.52.0.7"}
    [stuck] = [entry for entry in journal.entries if entry.message_id == MessageId.LEASE_STUCK]
    assert stuck.message == f"Lease 10.52.0.7 of k8s-pod-network stays: {os.strerror(code)}, ignoring"
    assert stuck.priority == 4
    assert THIS in tree.marker(), "and the boot is done"


@OF_ONE_LEASE
@pytest.mark.parametrize("leases", [2, 60])
def test_what_is_wrong_with_all_of_several_is_the_networks(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int, leases: int
) -> None:
    tree.mark("running")
    for number in range(leases):
        tree.lease(f"10.52.0.{number}")
    tree.lease("10.53.0.2", network="cbr0")
    failing("rename", monkeypatch, lambda arguments: str(arguments[0]).startswith("10.52."), code)
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.total.cleared, outcome.remarks) == ("failed", 1, ())
    assert outcome.why == f"k8s-pod-network: all {leases} leases stay: {os.strerror(code)}"
    assert len(tree.leases()) == leases
    assert tree.marker() == ""


@pytest.mark.parametrize("gone", ["10.52.0.0", "10.52.0.1", "10.52.0.2"])  # in whatever order they are listed
def test_where_none_went_one_that_is_gone_makes_no_difference(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    tree.mark("running")
    names = [f"10.52.0.{number}" for number in range(3)]
    for name in names:
        tree.lease(name)
    failing("rename", monkeypatch, lambda arguments: arguments[0] in names and arguments[0] != gone, errno.EPERM)
    failing("rename", monkeypatch, lambda arguments: arguments[0] == gone, errno.ENOENT)
    assert boot(tree, journal).result == "failed"


@OF_ONE_LEASE
def test_many_that_stay_are_one_warning_of_bounded_length(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    tree.mark("running")
    for number in range(2, 62):
        tree.lease(f"10.52.0.{number}")
    failing("rename", monkeypatch, lambda it: str(it[0]).startswith("10.52.") and it[0] != "10.52.0.7", code)
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.total.cleared, outcome.total.kept) == ("cleared", 1, 59)
    [stuck] = [entry for entry in journal.entries if entry.message_id == MessageId.LEASE_STUCK]
    assert re.fullmatch(
        rf"Leases (10\.52\.0\.\d+, ){{19}}10\.52\.0\.\d+ and 39 more of k8s-pod-network stay: "
        rf"{os.strerror(code)}, ignoring",
        stuck.message,
    )


@OF_ONE_LEASE
@pytest.mark.parametrize("torn", [True, False])
def test_after_a_clean_shutdown_one_that_cannot_be_read_is_kept_and_named(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int, torn: bool
) -> None:
    """It may be torn, and nobody can tell."""
    tree.mark("clean")
    for number in range(2, 62):
        tree.lease(f"10.52.0.{number}")
    if torn:
        tree.lease("10.52.0.9", "")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "10.52.0.7", code)
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.total.found) == ("cleared" if torn else "nothing-due", 60)
    assert [remark.text for remark in outcome.remarks] == [
        f"Lease 10.52.0.7 of k8s-pod-network stays: unreadable, {os.strerror(code)}, ignoring"
    ]
    assert "10.52.0.7" in tree.leases()
    assert THIS in tree.marker(), "and the boot is done"


@OF_ONE_LEASE
@pytest.mark.parametrize("leases", [2, 60])
def test_after_a_clean_shutdown_none_that_can_be_read_is_the_networks(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int, leases: int
) -> None:
    tree.mark("clean")
    for number in range(leases):
        tree.lease(f"10.52.0.{number}")
    tree.lease("10.53.0.2", "", network="cbr0")
    failing("open", monkeypatch, lambda arguments: str(arguments[0]).startswith("10.52."), code)
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.total.cleared, outcome.remarks) == ("failed", 1, ())
    assert outcome.why == f"k8s-pod-network: {leases} leases unreadable, {os.strerror(code)}"


@pytest.mark.parametrize("shelf", ["a link", "a file", "its folder cannot be made"])
def test_what_is_wrong_with_the_shelf_is_never_skipped(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, shelf: str
) -> None:
    """Only what is wrong in a network's place is; here all that is due would stay, and the unit be green."""
    tree.mark("running")
    tree.lease("10.52.0.2")
    if shelf == "a link":
        (tree.state / "set-aside").symlink_to(tree.root)
    elif shelf == "a file":
        (tree.state / "set-aside").touch()
    else:
        failing("mkdir", monkeypatch, lambda arguments: arguments[0] == "k8s-pod-network", errno.EPERM)
    outcome = service.boot(tree.node, Systemd(), journal)
    assert (outcome.result, outcome.total.cleared) == ("failed", 0)
    assert tree.leases() == {"10.52.0.2"}


@OF_ONE_LEASE
def test_a_lease_that_is_all_there_is_fails_nobody(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    failing("rename", monkeypatch, lambda arguments: arguments[0] == "10.52.0.2", code)
    outcome = boot(tree, journal)
    assert outcome.result != "failed"
    assert [remark.about for remark in outcome.remarks] == [MessageId.LEASE_STUCK]


@pytest.fixture
def frozen() -> Iterator[Callable[[Path], None]]:
    """What the real file system does not let go, as an administrator or a broken disk has it."""
    paths: list[Path] = []

    def freeze(path: Path) -> None:
        if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode != 0:
            pytest.skip("this file system knows no chattr +i")
        paths.append(path)

    yield freeze
    for path in paths:
        subprocess.run(["chattr", "-i", path], check=True)


def test_a_lease_that_is_immutable_stays_and_the_boot_is_done(tree: Tree, frozen: Callable[[Path], None]) -> None:
    tree.mark("running")
    for number in range(7, 68):
        tree.lease(f"10.52.0.{number}")
    frozen(tree.network / "10.52.0.7")
    done = command(tree.node, "boot")
    assert done.returncode == 0, done.stderr
    assert "<4>" not in done.stdout
    assert "Lease 10.52.0.7 of k8s-pod-network stays: Operation not permitted, ignoring\n" in done.stderr
    assert "Unclean shutdown: 60 leases set aside as 1-" in done.stderr
    assert tree.leases() == {"10.52.0.7"}


@pytest.mark.parametrize("place", ["the network", "the shelf"])
def test_where_nothing_can_be_moved_for_real_the_unit_is_not_green(
    tree: Tree, frozen: Callable[[Path], None], place: str
) -> None:
    tree.mark("running")
    for number in range(2, 62):
        tree.lease(f"10.52.0.{number}")
    tree.lease("lock", "")
    (tree.state / "set-aside").mkdir()
    frozen(tree.network if place == "the network" else tree.state / "set-aside")
    done = command(tree.node, "boot")
    assert done.returncode == os.EX_IOERR, done.stderr
    assert "Unclean shutdown, not all was done: k8s-pod-network: " in done.stderr
    assert "Operation not permitted" in done.stderr
    assert len(tree.leases()) == 60
    assert any("k8s-pod-network: " in text and "Operation not permitted" in text for text in gathered(tree).attention)


def test_a_lease_that_is_gone_by_now_is_no_error(tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3")
    failing("rename", monkeypatch, lambda arguments: arguments[0] == "10.52.0.2", errno.ENOENT)
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.total.cleared, outcome.remarks) == ("cleared", 1, ())


def test_several_networks_go_into_one_reset(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.lease("10.53.0.2", network="cbr0")
    outcome = service.boot(tree.node, Systemd(), journal)
    assert (outcome.total.cleared, len(list((tree.state / "set-aside").iterdir()))) == (2, 1)
