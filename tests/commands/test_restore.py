"""``restore`` on trees: a reset goes back, and nothing that is there now is lost."""

import os
from collections.abc import Sequence

import pytest
from conftest import Kept, Systemd, Tree, held_lock

from cni_lease_reset import cli, service
from cni_lease_reset.commands import restore
from cni_lease_reset.core.errors import BusyError, RefusedError, UsageError
from cni_lease_reset.core.events import MessageId
from cni_lease_reset.core.model import BootId
from cni_lease_reset.edges.systemd import Answer


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
    said = restore.restore(tree.node, Systemd(), journal, reset)
    assert mine.read_text() == "mine"
    assert tree.set_aside() == {"10.52.0.3"}
    assert "k8s-pod-network: 4 put back, 1 left" in said
    assert f"stays in reset {reset}" in said
    assert [entry.message_id for entry in journal.entries] == [MessageId.RESTORED]


def test_a_network_that_is_gone_is_made_again(tree: Tree, reset: str, journal: Kept) -> None:
    (tree.data / "cbr0/lock").unlink()
    (tree.data / "cbr0").rmdir()
    restore.restore(tree.node, Systemd(), journal, reset)
    assert tree.leases("cbr0") == {"fd00::2"}


@pytest.mark.parametrize("why", ["unit", "pod", "lock"])
def test_a_restore_is_refused_while_pods_may_live(tree: Tree, reset: str, journal: Kept, why: str) -> None:
    systemd = Systemd({"k3s.service": "active"} if why == "unit" else {})
    if why == "pod":
        tree.shim()
    if why == "lock":
        held_lock(tree)
    with pytest.raises((RefusedError, BusyError), match="nothing was put back") as error:
        restore.restore(tree.node, systemd, journal, reset)
    assert error.value.status == os.EX_TEMPFAIL
    assert len(tree.set_aside()) == 6


def test_a_refused_restore_leaves_no_trace(tree: Tree, reset: str, journal: Kept) -> None:
    (tree.data / "cbr0/lock").unlink()
    (tree.data / "cbr0").rmdir()
    with pytest.raises(RefusedError):
        restore.restore(tree.node, Systemd({"k3s.service": "active"}), journal, reset)
    assert not (tree.data / "cbr0").exists()


def test_a_runtime_that_comes_up_meanwhile_is_seen_under_the_lock(tree: Tree, reset: str, journal: Kept) -> None:
    class ComesUp(Systemd):
        def unit_states(self, units: Sequence[str]) -> Answer[dict[str, str]]:
            answer = super().unit_states(units)
            self.states["k3s.service"] = "active"
            return answer

    with pytest.raises(RefusedError, match="nothing was put back"):
        restore.restore(tree.node, ComesUp(), journal, reset)
    assert len(tree.set_aside()) == 6


@pytest.mark.parametrize("name", ["1-20261123T061201Z-11111112", "nonsense", "../../networks", "x\n"])
def test_a_wrong_name_is_told_with_the_nearest(tree: Tree, reset: str, journal: Kept, name: str) -> None:
    near = f", did you mean '{reset}'?" if name.startswith("1-") else ""
    with pytest.raises(UsageError) as error:
        restore.restore(tree.node, Systemd(), journal, name)
    assert str(error.value).endswith(near)
    assert "\n" not in str(error.value)


def test_the_number_of_a_reset_tells_which_is_meant(tree: Tree, reset: str, journal: Kept) -> None:
    with pytest.raises(UsageError, match=f"there is no reset '1', did you mean '{reset}'?"):
        restore.restore(tree.node, Systemd(), journal, "1")
    with pytest.raises(UsageError, match="there is no reset '7'; cni-lease-reset status lists them"):
        restore.restore(tree.node, Systemd(), journal, "7")


@pytest.mark.parametrize("place", [".", "k8s-pod-network"])
def test_what_somebody_left_in_a_reset_stays_there(tree: Tree, reset: str, journal: Kept, place: str) -> None:
    note = tree.state / "set-aside" / reset / place / "note"
    note.write_text("keep this")
    assert "k8s-pod-network: 5 put back, 0 left" in restore.restore(tree.node, Systemd(), journal, reset)
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
        restore.restore(tree.node, Systemd(), journal, "x")
