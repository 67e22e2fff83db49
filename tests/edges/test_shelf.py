"""The shelf: numbered resets with their reasons, of which old ones go."""

import errno
import os

import pytest
from conftest import NEXT, OTHER, Kept, Systemd, Tree, boot, failing

from cni_lease_reset import service
from cni_lease_reset.core.events import MessageId
from cni_lease_reset.core.model import BootId
from cni_lease_reset.edges import durable, shelf


def test_old_resets_beyond_the_limit_are_removed(tree: Tree, journal: Kept) -> None:
    tree.config("keep_resets: 2\n")
    for number in range(4):
        tree.mark("running")
        tree.next_kernel(BootId(f"4444444{number}-4444-4444-8444-444444444444"))
        tree.lease("10.52.0.2")
        boot(tree, journal)
    kept = sorted(path.name.partition("-")[0] for path in (tree.state / "set-aside").iterdir())
    assert kept == ["3", "4"]


def test_old_resets_that_cannot_be_removed_are_told(tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.config("keep_resets: 1\n")
    for number in (1, 2):
        (tree.state / f"set-aside/{number}-20261123T061201Z-22222222/net").mkdir(parents=True)
    tree.lease("10.52.0.2")
    failing("rmdir", monkeypatch, lambda _arguments: True, errno.EIO)
    service.boot(tree.node, Systemd(), journal)
    assert journal.entries[-1].message == "Old resets cannot be removed: 'net': Input/output error, ignoring"


def test_at_most_so_many_old_files_are_removed_a_boot(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "MOST_REMOVED", 3)
    for number in range(1, 5):
        folder = tree.state / f"set-aside/{number}-20261123T061201Z-22222222/net"
        folder.mkdir(parents=True)
        for lease in range(5):
            (folder / f"10.52.0.{lease}").touch()
    aside = tree.state / "set-aside"
    tree.lease("10.52.0.2")
    service.boot(tree.node, Systemd(), journal)
    assert [len(list(aside.glob(f"{number}-*/*/*"))) for number in range(1, 6)] == [2, 5, 5, 5, 1]
    tree.next_kernel(NEXT)
    tree.lease("10.52.0.2")
    service.boot(tree.node, Systemd(), journal)
    assert [len(list(aside.glob(f"{number}-*/*/*"))) for number in range(1, 7)] == [0, 4, 5, 5, 1, 1]
    assert sorted(path.name[0] for path in aside.iterdir()) == ["2", "3", "4", "5", "6"]


def test_a_boot_that_made_no_reset_removes_none(tree: Tree, journal: Kept) -> None:
    tree.config("keep_resets: 1\n")
    for number in range(1, 4):
        tree.put(f"var/lib/cni/cni-lease-reset/set-aside/{number}-20261123T061201Z-22222222/net/10.52.0.{number}", "")
    boot(tree, journal)
    assert tree.set_aside() == {"10.52.0.1", "10.52.0.2", "10.52.0.3"}


def test_boots_that_fail_cost_no_older_reset(tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.config("keep_resets: 1\n")
    evidence = tree.state / "set-aside/1-20261123T061201Z-22222222/k8s-pod-network/10.52.0.7"
    evidence.parent.mkdir(parents=True)
    evidence.touch()
    tree.lease("10.52.0.2")
    for number in range(3):
        tree.next_kernel(BootId(f"4444444{number}-4444-4444-8444-444444444444"))
        with monkeypatch.context() as broken:
            failing("rename", broken, lambda arguments: arguments[0] == "10.52.0.2", errno.EXDEV)
            assert service.boot(tree.node, Systemd(), journal).result == "failed"
    assert tree.set_aside() == {"10.52.0.7"}
    assert [path.name[0] for path in (tree.state / "set-aside").iterdir()] == ["1"]


def test_a_second_reset_is_numbered_after_the_first_whatever_the_clock_says(tree: Tree, journal: Kept) -> None:
    (tree.state / "set-aside/9-20991231T235959Z-22222222").mkdir(parents=True)
    (tree.state / "set-aside/notes").mkdir()
    tree.lease("10.52.0.2")
    assert str(service.boot(tree.node, Systemd(), journal).reset).startswith("10-")


def test_leases_in_another_data_directory_are_set_aside_beside_it(tree: Tree, journal: Kept) -> None:
    tree.config("data_dir: /data/cni/nets\n")
    lease = tree.root / "data/cni/nets/k8s-pod-network/10.52.0.2"
    lease.parent.mkdir(parents=True)
    lease.touch()
    reset = service.boot(tree.node, Systemd(), journal).reset
    assert (tree.root / f"data/cni/cni-lease-reset/set-aside/{reset}/k8s-pod-network/10.52.0.2").exists()


def test_a_reset_says_why_it_was_made(tree: Tree, reset: str) -> None:
    with durable.directory(f"/var/lib/cni/cni-lease-reset/set-aside/{reset}", root=tree.node.root) as folder:
        assert shelf.reason(folder) == "unclean shutdown"
        os.unlink("reason", dir_fd=folder)
        assert shelf.reason(folder) == ""


def test_a_reason_that_cannot_be_kept_stops_no_reset(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def full(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path.endswith("/reason"):
            raise OSError(28, "No space left on device", path)
        return opened(path, flags, mode, dir_fd=dir_fd)

    tree.mark("running", OTHER)
    tree.lease("10.52.0.2")
    monkeypatch.setattr(os, "open", full)
    assert service.boot(tree.node, Systemd(), journal).cleared == 1
    assert [entry.message_id for entry in journal.entries] == [MessageId.IGNORED, MessageId.CLEARED]
