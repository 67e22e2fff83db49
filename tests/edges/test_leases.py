"""host-local's leases: which files are some, and which networks are ours."""

import errno
import os

import pytest
from conftest import SANDBOX, THIS, Kept, Systemd, Tree, boot, failing

from cni_lease_reset import service
from cni_lease_reset.core import events
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


@pytest.mark.parametrize("lock", ["symlink", "directory"])
def test_a_lock_that_is_no_file_is_skipped(tree: Tree, journal: Kept, lock: str) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    victim = tree.root / "victim"
    if lock == "symlink":
        (tree.network / "lock").symlink_to(victim)
    else:
        (tree.network / "lock").mkdir()
    service.boot(tree.node, Systemd(), journal)
    assert journal.entries[0].message_id == events.MessageId.NETWORK_SKIPPED
    assert not victim.exists()
    assert tree.leases() == {"10.52.0.2"}


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

    def content(parent: int, name: str, limit: int) -> tuple[bytes, float]:
        if name == "10.52.0.2":
            os.unlink(name, dir_fd=parent)
        return real(parent, name, limit)

    monkeypatch.setattr(durable, "content", content)
    assert leases.survey(tree.node, Config()).networks[0].leases == 1


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


def test_a_disk_that_opens_no_file_is_the_networks_trouble(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "10.52.0.2", errno.EMFILE)
    assert boot(tree, journal).result == "failed"


def test_an_inventory_is_in_the_order_of_the_addresses_and_has_times(tree: Tree) -> None:
    for address in ("fd00::1", "10.52.0.10", "10.52.0.9", "fd00::"):
        os.utime(tree.lease(address), (7, 7))
    (network,) = leases.survey(tree.node, Config()).networks
    found = leases.inventory(network)
    assert [lease.address for lease in found] == ["10.52.0.9", "10.52.0.10", "fd00::", "fd00::1"]
    assert {(lease.owner, lease.torn, lease.written) for lease in found} == {(SANDBOX, False, 7.0)}


@pytest.mark.parametrize("code", [errno.EUCLEAN, errno.EIO, errno.EPERM, errno.EACCES])
def test_a_lease_that_cannot_be_read_is_nobodys_and_the_others_are_read(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "10.52.0.2", code)
    (network,) = leases.survey(tree.node, Config()).networks
    found = leases.inventory(network)
    assert [(lease.owner, lease.torn) for lease in found] == [(None, False), (SANDBOX, False)]


def test_an_error_of_the_file_system_is_no_leases_own(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.lease("10.52.0.2")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "10.52.0.2", errno.EMFILE)
    survey = leases.survey(tree.node, Config())
    assert survey.networks == ()
    assert [(each.network, each.again) for each in survey.troubles] == [("k8s-pod-network", True)]
