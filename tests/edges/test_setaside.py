"""Leases are set aside under host-local's own lock, beside the real host-local."""

import errno
import fcntl
import subprocess
import sys
import threading

import pytest
from conftest import NEXT, OTHER, HostLocal, Kept, Systemd, Tree, boot, failing

from cni_lease_reset import service
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges import systemd


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
    assert boot(tree, journal).cleared == 2
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
    assert OTHER in tree.marker()
    tree.next_kernel(NEXT)
    assert boot(tree, journal).cleared == 1


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

        def unit_states(self, units: object) -> systemd.Answer[dict[str, str]]:
            locked.set()
            return systemd.Answer(dict.fromkeys(Config().runtime_units, "inactive"))

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


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EXDEV])
def test_a_lease_that_cannot_be_moved_fails_the_boot_and_the_next_one_tries_again(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3")
    with monkeypatch.context() as broken:
        failing("rename", broken, lambda arguments: arguments[0] == "10.52.0.3", code)
        assert service.boot(tree.node, Systemd(), journal).result == "failed"
    assert journal.verdicts[0]["CNI_LEASES_CLEARED"] in ("0", "1")
    assert tree.leases() | tree.set_aside() == {"10.52.0.2", "10.52.0.3"}
    assert OTHER in tree.marker()
    tree.next_kernel(NEXT)
    assert service.boot(tree.node, Systemd(), journal).judgement.verdict == "unclean"
    assert tree.set_aside() == {"10.52.0.2", "10.52.0.3"}


def test_several_networks_go_into_one_reset(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.lease("10.53.0.2", network="cbr0")
    outcome = service.boot(tree.node, Systemd(), journal)
    assert (outcome.cleared, len(list((tree.state / "set-aside").iterdir()))) == (2, 1)
