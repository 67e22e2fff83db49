"""``restore`` on trees: a reset goes back, and nothing that is there now is lost."""

import errno
import os

import pytest
from conftest import Kept, Systemd, Tree, everything, failing, held_lock
from reported import gathered

from cni_lease_reset import cli, service
from cni_lease_reset.commands import recover, restore
from cni_lease_reset.commands.fate import Fate
from cni_lease_reset.core.errors import BusyError, InputOutputError, RefusedError, UsageError
from cni_lease_reset.core.findings import MessageId
from cni_lease_reset.core.model import BootId
from cni_lease_reset.edges import lock
from cni_lease_reset.edges.lock import only_one


def test_a_reset_is_put_back_whole(tree: Tree, reset: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.stat().st_ino for path in (tree.state / "set-aside").rglob("*") if path.is_file()}
    assert cli.main(["--root", str(tree.root), "restore", reset]) == 0
    assert capsys.readouterr().out == "cbr0: 1 put back, 0 left\nk8s-pod-network: 5 put back, 0 left\n"
    assert {name: (tree.network / name).stat().st_ino for name in tree.leases()}.items() <= before.items()
    assert tree.leases() == {f"10.52.0.{number}" for number in range(2, 7)}
    assert tree.leases("cbr0") == {"fd00::2"}
    assert list((tree.state / "set-aside").iterdir()) == []


def test_a_lease_that_exists_now_is_never_overwritten(tree: Tree, reset: str, journal: Kept) -> None:
    mine = tree.lease("10.52.0.3", "mine")
    said = restore.restore(tree.node, journal, reset)
    assert mine.read_text() == "mine"
    assert tree.set_aside() == {"10.52.0.3"}
    assert "k8s-pod-network: 4 put back, 1 left" in said
    assert f"stays in reset {reset}" in said
    assert [entry.message_id for entry in journal.entries] == [MessageId.RESTORED]


def test_a_network_that_is_gone_is_made_again(tree: Tree, reset: str, journal: Kept) -> None:
    (tree.data / "cbr0/lock").unlink()
    (tree.data / "cbr0").rmdir()
    restore.restore(tree.node, journal, reset)
    assert tree.leases("cbr0") == {"fd00::2"}


def test_a_living_pod_gets_back_its_lease_with_rke2_up(tree: Tree, reset: str, journal: Kept) -> None:
    tree.shim()
    (tree.data / "cbr0/lock").unlink()
    assert "5 put back" in restore.restore(tree.node, journal, reset)
    assert all(not sight.of(Fate.LEAKED) for sight in recover.look(tree.node))
    assert len(tree.leases()) == 5


def test_a_busy_network_stays_on_the_shelf_and_the_others_come_back(
    tree: Tree, reset: str, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HOST_LOCAL", 0.05)
    busy = "k8s-pod-network: busy: another process holds host-local's lock"
    with held_lock(tree), pytest.raises(BusyError) as error:
        restore.restore(tree.node, journal, reset)
    counts = "cbr0: 1 put back, 0 left; k8s-pod-network: 0 put back, 0 left"
    assert str(error.value) == f"not all was put back: {counts}; {busy}; the rest stays in reset {reset}"
    assert error.value.status == os.EX_TEMPFAIL
    assert (tree.leases(), tree.leases("cbr0"), len(tree.set_aside())) == (set(), {"fd00::2"}, 5)
    [entry] = journal.entries
    assert (entry.message_id, entry.priority) == (MessageId.RESTORED, 4)
    assert entry.message == f"Restored: 1 lease of {reset} put back, 0 left; not all could be: {busy}."
    restore.restore(tree.node, journal, reset)
    assert (len(tree.leases()), list((tree.state / "set-aside").iterdir())) == (5, [])


def test_one_that_fails_half_way_says_how_many_are_back_of_which_network(
    tree: Tree, reset: str, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing("rename", monkeypatch, lambda _arguments: len(tree.leases()) == 3, errno.ENOSPC)
    with pytest.raises(InputOutputError) as error:
        restore.restore(tree.node, journal, reset)
    assert "cbr0: 1 put back, 0 left; k8s-pod-network: 3 put back, 0 left; k8s-pod-network: '10.52." in str(error.value)
    assert str(error.value).endswith(f": No space left on device; the rest stays in reset {reset}")
    assert (len(tree.leases()), len(tree.set_aside())) == (3, 2)
    [entry] = journal.entries
    assert entry.message.startswith(
        f"Restored: 4 leases of {reset} put back, 0 left; not all could be: k8s-pod-network: "
    )


OF_ONE_LEASE = pytest.mark.parametrize("code", [errno.EUCLEAN, errno.EPERM, errno.EIO, errno.EACCES])


@OF_ONE_LEASE
def test_one_that_cannot_be_moved_is_named_and_the_others_come_back(
    tree: Tree, reset: str, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    with monkeypatch.context() as broken:
        failing("rename", broken, lambda arguments: arguments[0] == "10.52.0.4", code)
        said = restore.restore(tree.node, journal, reset)
    stays = f"Lease 10.52.0.4 of k8s-pod-network stays: {os.strerror(code)}, ignoring"
    assert said == "cbr0: 1 put back, 0 left\nk8s-pod-network: 4 put back, 1 left\n"
    assert (len(tree.leases()), tree.set_aside()) == (4, {"10.52.0.4"})
    assert [(entry.message_id, entry.priority) for entry in journal.entries] == [
        (MessageId.LEASE_STUCK, 4),
        (MessageId.RESTORED, 5),
    ]
    assert journal.entries[0].message == stays
    restore.restore(tree.node, journal, reset)
    assert (len(tree.leases()), list((tree.state / "set-aside").iterdir())) == (5, [])


@OF_ONE_LEASE
def test_where_none_of_several_can_be_moved_it_is_the_networks_failure(
    tree: Tree, reset: str, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    failing("rename", monkeypatch, lambda arguments: str(arguments[0]).startswith("10.52."), code)
    with pytest.raises(InputOutputError) as error:
        restore.restore(tree.node, journal, reset)
    assert f"k8s-pod-network: all 5 leases stay: {os.strerror(code)}; the rest stays" in str(error.value)
    assert (tree.leases("cbr0"), len(tree.set_aside())) == ({"fd00::2"}, 5)


@pytest.mark.parametrize("call", ["open", "listdir"])
def test_a_networks_folder_that_cannot_be_read_keeps_no_other_back(
    tree: Tree, reset: str, journal: Kept, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    place = (tree.state / "set-aside" / reset / "k8s-pod-network").stat().st_ino

    def meant(arguments: tuple[object, ...]) -> bool:
        if call == "open":
            return arguments[0] == "k8s-pod-network"
        return isinstance(arguments[0], int) and os.stat(arguments[0]).st_ino == place

    failing(call, monkeypatch, meant, errno.EIO)
    with pytest.raises(InputOutputError, match="k8s-pod-network: .*Input/output error"):
        restore.restore(tree.node, journal, reset)
    assert (tree.leases(), tree.leases("cbr0"), len(tree.set_aside())) == (set(), {"fd00::2"}, 5)


def test_an_empty_reset_that_cannot_be_removed_is_told_and_all_is_back(
    tree: Tree, reset: str, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing("rmdir", monkeypatch, lambda arguments: arguments[0] == "cbr0", errno.EIO)
    said = restore.restore(tree.node, journal, reset)
    assert "k8s-pod-network: 5 put back, 0 left\n" in said
    assert [entry.message_id for entry in journal.entries] == [MessageId.IGNORED, MessageId.RESTORED]
    assert journal.entries[0].message == "Old resets cannot be removed: 'cbr0': Input/output error, ignoring"


@pytest.mark.parametrize("lock", ["a link", "a directory"])
def test_a_lock_that_is_no_file_keeps_its_network_on_the_shelf(
    tree: Tree, reset: str, journal: Kept, lock: str
) -> None:
    (tree.network / "lock").unlink()
    if lock == "a link":
        (tree.network / "lock").symlink_to(tree.root / "victim")
    else:
        (tree.network / "lock").mkdir()
    with pytest.raises(InputOutputError, match="k8s-pod-network: 'lock': "):
        restore.restore(tree.node, journal, reset)
    assert (tree.leases("cbr0"), len(tree.set_aside())) == ({"fd00::2"}, 5)


def test_another_of_our_programs_is_respected(tree: Tree, reset: str, journal: Kept) -> None:
    with only_one(tree.node), pytest.raises(BusyError, match="another cni-lease-reset is at work, try again"):
        restore.restore(tree.node, journal, reset)
    assert (len(tree.set_aside()), journal.entries) == (6, [])


@pytest.mark.parametrize("name", ["1-20261123T061201Z-11111112", "nonsense", "../../networks", "x\n"])
def test_a_wrong_name_is_told_with_the_nearest(tree: Tree, reset: str, journal: Kept, name: str) -> None:
    near = f", did you mean '{reset}'?" if name.startswith("1-") else ""
    with pytest.raises(UsageError) as error:
        restore.restore(tree.node, journal, name)
    assert str(error.value).endswith(near)
    assert "\n" not in str(error.value)


def test_the_number_of_a_reset_tells_which_is_meant(tree: Tree, reset: str, journal: Kept) -> None:
    with pytest.raises(UsageError, match=f"there is no reset '1', did you mean '{reset}'?"):
        restore.restore(tree.node, journal, "1")
    with pytest.raises(UsageError, match="there is no reset '7'; cni-lease-reset status lists them"):
        restore.restore(tree.node, journal, "7")


@pytest.mark.parametrize("place", [".", "k8s-pod-network"])
def test_what_somebody_left_in_a_reset_stays_there(tree: Tree, reset: str, journal: Kept, place: str) -> None:
    note = tree.state / "set-aside" / reset / place / "note"
    note.write_text("keep this")
    assert "k8s-pod-network: 5 put back, 0 left" in restore.restore(tree.node, journal, reset)
    assert len(tree.leases()) == 5
    assert note.read_text() == "keep this"
    assert (tree.state / "set-aside" / reset / "reason").exists(), "the reset is there, and so is why"
    assert not (tree.network / "note").exists()
    tree.next_kernel(BootId("44444444-4444-4444-8444-444444444444"))
    service.boot(tree.node, Systemd(), journal)
    assert [entry.message_id for entry in journal.entries] == [MessageId.RESTORED, MessageId.CLEARED], (
        "and no complaint"
    )
    assert note.read_text() == "keep this"


def test_without_any_reset_there_is_none_to_restore(tree: Tree, journal: Kept) -> None:
    with pytest.raises(UsageError, match="there is no reset 'x'"):
        restore.restore(tree.node, journal, "x")


def test_a_reset_of_another_data_dir_is_refused(tree: Tree, reset: str, journal: Kept) -> None:
    """The shelf is the same for each data directory beside the other."""
    tree.config("data_dir: /var/lib/cni/elsewhere\n")
    before = everything(tree.data) | everything(tree.state / "set-aside")
    with pytest.raises(RefusedError) as error:
        restore.restore(tree.node, journal, reset)
    assert str(error.value) == (
        f"nothing was changed: the leases of reset {reset} are of '/var/lib/cni/networks', and data_dir is "
        "'/var/lib/cni/elsewhere' now; set it back for this"
    )
    assert (error.value.status, journal.entries) == (os.EX_TEMPFAIL, [])
    assert everything(tree.data) | everything(tree.state / "set-aside") == before
    assert not (tree.data.parent / "elsewhere").exists()
    tree.config("data_dir: /var/lib/cni/networks\n")
    assert "5 put back" in restore.restore(tree.node, journal, reset)


@pytest.mark.parametrize(
    "reason", ["", "unclean shutdown\n", None], ids=["lost in a crash", "an older version's", "none"]
)
def test_one_that_remembers_no_data_dir_goes_back(tree: Tree, reset: str, journal: Kept, reason: str | None) -> None:
    path = tree.state / "set-aside" / reset / "reason"
    path.unlink() if reason is None else path.write_text(reason)
    tree.config("data_dir: /var/lib/cni/elsewhere\n")
    assert "5 put back" in restore.restore(tree.node, journal, reset)


def test_where_a_reset_came_from_is_no_part_of_its_reason(tree: Tree, reset: str) -> None:
    [shown] = gathered(tree).resets
    assert shown.reason == "unclean shutdown"
    assert (tree.state / "set-aside" / reset / "reason").read_text() == (
        "unclean shutdown\ndata_dir=/var/lib/cni/networks\n"
    )
