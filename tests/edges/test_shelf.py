"""The shelf: numbered resets with their reasons, of which old ones go."""

import errno
import os
import re

import pytest
from conftest import NEXT, OTHER, THIS, Kept, Systemd, Tree, boot, failing

from cni_lease_reset import service
from cni_lease_reset.commands import recover
from cni_lease_reset.core.findings import MessageId
from cni_lease_reset.core.model import BootId, Config
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


def resets(*numbers: int, boot: str) -> list[str]:
    return [f"{number}-20261123T061201Z-{boot}" for number in numbers]


A, B, C = "aaaaaaaa", "bbbbbbbb", "cccccccc"


@pytest.mark.parametrize(
    ("found", "boots", "outdated"),
    [
        pytest.param([], 3, [], id="none"),
        pytest.param(resets(1, boot=A), 1, [], id="one"),
        pytest.param(resets(1, boot=A) + resets(2, boot=B), 1, resets(1, boot=A), id="of an older boot"),
        pytest.param(resets(1, 2, boot=A) + resets(3, boot=B), 2, [], id="boots count, not resets"),
        pytest.param(
            resets(1, 2, boot=A) + resets(3, boot=B) + resets(4, boot=C), 2, resets(1, 2, boot=A), id="all of a boot"
        ),
        pytest.param(resets(1, boot=A) + resets(2, boot=B) + resets(3, boot=A), 1, resets(2, boot=B), id="by its newest"),
        pytest.param(resets(*range(1, 22), boot=A), 1, [], id="the first and twenty"),
        pytest.param(resets(*range(1, 31), boot=A), 1, resets(*range(2, 11), boot=A), id="the first and the newest twenty"),
        pytest.param(
            resets(*range(1, 31), boot=A) + resets(*range(31, 61), boot=B),
            2,
            resets(*range(2, 11), boot=A) + resets(*range(32, 41), boot=B),
            id="of each boot",
        ),
    ],
)  # fmt: skip
def test_resets_are_kept_by_their_boots(found: list[str], boots: int, outdated: list[str]) -> None:
    assert shelf.outdated(found, boots) == outdated


def test_a_recover_every_hour_costs_no_boot_its_own_reset(tree: Tree, journal: Kept) -> None:
    tree.config("keep_resets: 1\n")
    tree.mark("running")
    tree.lease("10.52.0.2")
    own = boot(tree, journal).reset
    for number in range(30):
        tree.lease(f"10.52.0.{100 + number}")
        assert recover.work(tree.node, journal, lambda _line: None, crowded=False) is None
    kept = sorted(int(path.name.partition("-")[0]) for path in (tree.state / "set-aside").iterdir())
    assert own is not None
    assert kept == [1, *range(12, 32)]
    assert (tree.state / "set-aside" / own / "k8s-pod-network/10.52.0.2").exists()


def long_ago(tree: Tree, *numbers: int, leases: int = 1) -> None:
    """Resets, each of another boot."""
    for number in numbers:
        folder = tree.state / f"set-aside/{number}-20261123T061201Z-4444444{number}/net"
        folder.mkdir(parents=True)
        for lease in range(leases):
            (folder / f"10.52.0.{lease}").touch()


@pytest.mark.parametrize("leases", [0, 1])
def test_old_resets_that_cannot_be_removed_are_told(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, leases: int
) -> None:
    tree.config("keep_resets: 1\n")
    long_ago(tree, 1, 2, leases=leases)
    tree.lease("10.52.0.2")
    failing("rmdir", monkeypatch, lambda _arguments: True, errno.EIO)
    service.boot(tree.node, Systemd(), journal)
    told = r"Old resets cannot be removed: 'net': Input/output error \(and \d more\), ignoring"
    assert re.fullmatch(told, journal.entries[-1].message)


OF_ONE_FILE = pytest.mark.parametrize("code", [errno.EUCLEAN, errno.EPERM, errno.EIO, errno.EACCES])


@OF_ONE_FILE
@pytest.mark.parametrize("call", ["unlink", "open", "rmdir", "scandir"])
def test_one_thing_that_cannot_be_removed_keeps_nothing_else(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    tree.config("keep_resets: 1\n")
    long_ago(tree, 1, 2, 3, 4, leases=3)
    first = tree.state / "set-aside/1-20261123T061201Z-44444441"
    inode = (first / "net").stat().st_ino
    tree.lease("10.52.0.2")
    with monkeypatch.context() as broken:
        if call == "unlink":
            name, left = "10.52.0.1", 1  # of each old reset
            failing(call, broken, lambda arguments: arguments[0] == name, code)
        elif call == "scandir":
            left = 3
            failing(call, broken, lambda it: isinstance(it[0], int) and os.stat(it[0]).st_ino == inode, code)
        else:
            left = {"open": 3, "rmdir": 0}[call]
            failing(call, broken, lambda arguments: arguments[0] == first.name, code)
        outcome = service.boot(tree.node, Systemd(), journal)
    assert (outcome.result, THIS in tree.marker()) == ("cleared", True)
    assert len(list(first.rglob("10.52.*"))) == left
    others = {path.name[0]: len(list(path.rglob("10.52.*"))) for path in (tree.state / "set-aside").iterdir()}
    del others["1"]
    assert others == ({"2": 1, "3": 1, "4": 1, "5": 1} if call == "unlink" else {"5": 1})
    assert re.match(f"Old resets cannot be removed: '.*': {os.strerror(code)}", journal.entries[-1].message)
    assert (journal.entries[-1].message_id, journal.entries[-1].priority) == (MessageId.IGNORED, 4)


def test_what_stands_in_an_old_resets_place_keeps_nothing_else(tree: Tree, journal: Kept) -> None:
    tree.config("keep_resets: 1\n")
    long_ago(tree, 2, 3)
    (tree.state / "set-aside/1-20261123T061201Z-44444441").symlink_to(tree.root)
    tree.lease("10.52.0.2")
    service.boot(tree.node, Systemd(), journal)
    kept = sorted(path.name[0] for path in (tree.state / "set-aside").iterdir())
    assert kept == ["1", "4"]
    assert journal.entries[-1].message.endswith("44444441': Not a directory, ignoring")


def test_files_that_cannot_be_removed_do_not_use_up_what_a_boot_removes(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or they would keep all newer ones for ever."""
    monkeypatch.setattr(shelf, "MOST_REMOVED", 3)
    tree.config("keep_resets: 1\n")
    long_ago(tree, 1, 2, leases=3)
    first = tree.state / "set-aside/1-20261123T061201Z-44444441/net"
    inode = first.stat().st_ino
    tree.lease("10.52.0.2")
    with monkeypatch.context() as broken:
        real = os.unlink

        def unlink(name: str, *, dir_fd: int | None = None) -> None:
            if dir_fd is not None and os.fstat(dir_fd).st_ino == inode:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM), name)
            real(name, dir_fd=dir_fd)

        broken.setattr(os, "unlink", unlink)
        service.boot(tree.node, Systemd(), journal)
    assert sorted(path.name[0] for path in (tree.state / "set-aside").iterdir()) == ["1", "3"]


def test_a_shelf_that_is_gone_by_then_is_told(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    [remark] = shelf.prune(tree.node, Config())
    assert remark.text.startswith("Old resets cannot be removed: '")
    assert remark.text.endswith("': No such file or directory, ignoring")


def test_at_most_so_many_old_files_are_removed_a_boot(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "MOST_REMOVED", 3)
    long_ago(tree, 1, 2, 3, 4, leases=5)
    tree.lease("10.52.0.2")
    service.boot(tree.node, Systemd(), journal)
    left = [len(list(path.rglob("10.52.*"))) for path in sorted((tree.state / "set-aside").iterdir())]
    assert left == [2, 5, 5, 5, 1]
    tree.lease("10.52.0.2")
    tree.next_kernel(NEXT)
    tree.lease("10.52.0.2")
    service.boot(tree.node, Systemd(), journal)
    left = [len(list(path.rglob("10.52.*"))) for path in sorted((tree.state / "set-aside").iterdir())]
    assert left == [4, 5, 5, 1, 1]


def test_a_boot_that_made_no_reset_removes_none(tree: Tree, journal: Kept) -> None:
    tree.config("keep_resets: 1\n")
    long_ago(tree, 1, 2, 3)
    boot(tree, journal)
    assert len(tree.set_aside()) == 1
    assert len(list((tree.state / "set-aside").iterdir())) == 3


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
        assert shelf.origin(folder) == ("unclean shutdown", "/var/lib/cni/networks")
        os.unlink("reason", dir_fd=folder)
        assert shelf.origin(folder) == ("", "")


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
    assert service.boot(tree.node, Systemd(), journal).total.cleared == 1
    assert [entry.message_id for entry in journal.entries] == [MessageId.IGNORED, MessageId.CLEARED]
