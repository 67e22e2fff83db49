"""The record under /run: that boot ran under this kernel, and what came of it."""

import errno
import json
import shutil

import pytest
from conftest import Kept, Systemd, Tree, boot
from reported import gathered, shown

from cni_lease_reset import service
from cni_lease_reset.commands import display
from cni_lease_reset.core.findings import Outcome
from cni_lease_reset.core.model import BootId
from cni_lease_reset.edges import record
from cni_lease_reset.edges.node import Node

RECORDS = [b"", b"[]", b"{}", b'{"boot_id": 1, "x": 2}', b"\xff", b"[" * 100_000, b'{"boot_id": "x", "verdict": "odd"}']


def test_the_second_boot_under_a_kernel_touches_nothing(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    boot(tree, journal)
    tree.lease("10.52.0.9")
    assert boot(tree, journal).judgement.verdict == "same-boot"
    assert tree.leases() == {"10.52.0.9"}
    noted = record.read(tree.node).outcome
    assert noted is not None
    assert noted.judgement.verdict == "unclean", "the boot's own outcome stays"


def test_a_run_that_failed_before_it_could_judge_leaves_no_second_chance(tree: Tree, journal: Kept) -> None:
    tree.lease("10.52.0.2")
    tree.state.write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        service.boot(tree.node, Systemd(), journal)
    tree.state.unlink()
    outcome = service.boot(tree.node, Systemd(), journal)  # mended, and started again under living pods
    assert (outcome.judgement.verdict, outcome.total.cleared) == ("same-boot", 0)
    tree.next_kernel(BootId("44444444-4444-4444-8444-444444444444"))
    assert service.boot(tree.node, Systemd(), journal).total.cleared == 1


def test_a_second_run_that_fails_so_does_not_forget_the_first(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    first = service.boot(tree.node, Systemd(), journal)
    (tree.state / "marker").rename(tree.root / "kept")
    tree.state.rename(tree.root / "away")
    tree.state.write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        service.boot(tree.node, Systemd(), journal)
    assert record.read(tree.node).outcome == first


def test_a_run_directory_that_cannot_be_written_sets_nothing_aside(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    (tree.root / "run").write_text("")
    outcome = boot(tree, journal)
    assert outcome.judgement.verdict == "same-boot", "what cannot be read counts as this boot's: the safe side"
    assert tree.leases() == {"10.52.0.2"}
    assert tree.marker() == ""


def test_an_outcome_that_cannot_be_kept_is_told(tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_node: Node, _boot_id: BootId, outcome: Outcome | None = None) -> OSError | None:
        return None if outcome is None else OSError(errno.ENOSPC, "No space left on device", "boot.new")

    monkeypatch.setattr(record, "write", refuse)
    assert service.boot(tree.node, Systemd(), journal).result == "nothing-due"
    assert "cannot be kept for status: 'boot.new': No space left on device, ignoring" in journal.entries[0].message


@pytest.mark.parametrize("content", RECORDS)
def test_a_record_that_cannot_be_read_is_this_boots(tree: Tree, journal: Kept, content: bytes) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    (tree.root / "run/cni-lease-reset").mkdir(parents=True)
    (tree.root / "run/cni-lease-reset/boot").write_bytes(content)
    assert service.boot(tree.node, Systemd(), journal).judgement.verdict == "same-boot"
    assert tree.leases() == {"10.52.0.2"}
    assert "not known: /run/cni-lease-reset/boot" in shown(tree)


def test_an_outcome_survives_its_record(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.lease("10.60.0.1", network="other")
    outcome = service.boot(tree.node, Systemd(remark="no bus"), journal)
    assert record.read(tree.node).outcome == outcome
    assert json.loads(display.as_json(gathered(tree)))["boot"]["leases"]["cleared"] == 1


def test_what_is_said_once_a_boot_is_said_again_under_another_kernel(tree: Tree) -> None:
    assert [record.first_time(tree.node, "this") for _ in range(3)] == [True, False, False]
    assert record.first_time(tree.node, "that")
    shutil.rmtree(tree.root / "run")
    assert record.first_time(tree.node, "this")


def test_where_run_cannot_be_written_it_is_rather_said_twice(tree: Tree) -> None:
    (tree.root / "run").write_text("in the way")
    assert [record.first_time(tree.node, "this") for _ in range(2)] == [True, True]
