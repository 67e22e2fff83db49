"""The marker: strict to read, durable to write, and never clean by mistake."""

import errno
import os
from typing import NoReturn

import pytest
from conftest import NEXT, OTHER, THIS, Kept, Systemd, Tree, boot, failing
from hypothesis import given
from hypothesis import strategies as st

from cni_lease_reset import service
from cni_lease_reset.core import findings
from cni_lease_reset.core.model import DamagedMarker, Marker, NoMarker, State
from cni_lease_reset.edges import durable, marker, record

GOOD = marker.render(Marker(State.CLEAN, OTHER, "2026-11-23T06:12:01Z"))


def test_what_is_written_is_read() -> None:
    assert marker.parse(GOOD) == Marker(State.CLEAN, OTHER, "2026-11-23T06:12:01Z")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (GOOD[:-1], "cut off"),
        (GOOD + b"extra=1\n", "does not hold just"),
        (GOOD + b"state=clean\n", "does not hold just"),
        (GOOD.replace(b"since", b"until"), "does not hold just"),
        (GOOD.replace(b"state=clean", b"state=suspended"), "state=suspended"),
        (GOOD.replace(b"22222222-", b"2222222-"), "it says boot_id=2222222-"),
        (GOOD.replace(b"T06", b" 06"), "it says since=2026-11-23 06"),
        (b"\xff\xfe\0", "not text"),
    ],
)
def test_anything_else_is_damaged(content: bytes, why: str) -> None:
    reading = marker.parse(content)
    assert isinstance(reading, DamagedMarker)
    assert why in reading.why


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(content: bytes) -> None:
    assert isinstance(marker.parse(content), DamagedMarker)


@given(st.integers(0, len(GOOD) - 1))
def test_no_cut_makes_it_clean(length: int) -> None:
    assert isinstance(marker.parse(GOOD[:length]), DamagedMarker)


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
def test_what_is_no_file_is_damaged(tree: Tree, kind: str) -> None:
    path = tree.state / "marker"
    tree.state.mkdir(parents=True)
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        (tree.state / "elsewhere").write_bytes(GOOD)
        path.symlink_to("elsewhere")
    assert marker.read(tree.node) == DamagedMarker("reading it fails: not a regular file")


def test_a_missing_one_is_none_and_so_is_one_in_no_directory(tree: Tree) -> None:
    assert marker.read(tree.node) == NoMarker()
    tree.state.mkdir(parents=True)
    assert marker.read(tree.node) == NoMarker()


def test_it_is_removed_for_good(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.mark("clean")
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.path.samestat(os.fstat(fd), tree.state.stat())))
    marker.take(tree.node)
    assert marker.read(tree.node) == NoMarker()
    assert synced == [True], "or the crash may bring it back"


def test_the_write_is_durable(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.state.mkdir(parents=True)
    order: list[str] = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(fd: int) -> None:
        order.append(f"fsync {'directory' if os.path.isdir(f'/proc/self/fd/{fd}') else 'file'}")
        fsync(fd)

    def recorded_rename(*arguments: str, **descriptors: int) -> None:
        order.append("rename")
        rename(*arguments, **descriptors)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    marker.record(tree.node, State.RUNNING, THIS)
    assert order == ["fsync file", "rename", "fsync directory"]
    assert [path.name for path in tree.state.iterdir()] == ["marker"]
    assert (tree.state / "marker").stat().st_mode & 0o777 == 0o644


def test_a_left_over_temporary_file_or_link_is_replaced(tree: Tree) -> None:
    tree.state.mkdir(parents=True)
    victim = tree.state / "victim"
    victim.write_text("mine")
    (tree.state / "marker.new").symlink_to(victim)
    marker.record(tree.node, State.RUNNING, THIS)
    assert isinstance(marker.read(tree.node), Marker)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("what", ["clean", "running", "damaged"])
def test_it_is_taken_whatever_it_says(tree: Tree, what: str) -> None:
    tree.mark(what)
    (tree.state / "marker.new").mkdir()  # nothing can be written there
    marker.take(tree.node)
    assert marker.read(tree.node) == NoMarker()
    marker.take(tree.node)  # there is none now


def test_it_is_as_old_as_its_file(tree: Tree) -> None:
    tree.mark("clean")
    os.utime(tree.state / "marker", (5, 1_000_000.25))
    assert marker.read(tree.node) == Marker(State.CLEAN, OTHER, "2026-11-23T06:12:01Z", 1_000_000.25)


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_mark_that_cannot_be_read_may_be_clean_and_does_not_stay(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    tree.config("network: [mistyped]\n")  # so that nothing is written over it
    read = durable.read

    def failing(name: str, limit: int, *, parent: int | None = None) -> tuple[bytes, os.stat_result]:
        if name == "marker":
            raise OSError(code, os.strerror(code), name)
        return read(name, limit, parent=parent)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "read", failing)
        assert boot(tree, journal).judgement.verdict == "damaged"
    assert not (tree.state / "marker").exists()
    tree.next_kernel(NEXT)
    assert boot(tree, journal).judgement.verdict == "unknown", "never clean: that boot may have crashed"


def test_a_mark_that_stays_where_nothing_can_be_judged_is_told(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.mark("clean")
    (tree.root / "proc/sys/kernel/random/boot_id").unlink()

    def failing(_parent: int, name: str) -> NoReturn:
        raise OSError(errno.EROFS, "Read-only file system", name)

    monkeypatch.setattr(durable, "remove", failing)
    with pytest.raises(
        OSError, match="The marker of an earlier boot cannot be removed: 'marker': Read-only file system"
    ):
        service.boot(tree.node, Systemd(), journal)


@pytest.mark.parametrize("name", ["fsync", "rename"])
def test_a_marker_that_cannot_be_written_fails_the_boot(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    real = durable.replace

    def replace(parent: int, file: str, content: bytes) -> None:
        with monkeypatch.context() as broken:
            if file == "marker":
                failing(name, broken, lambda _arguments: True, errno.ENOSPC)
            real(parent, file, content)

    monkeypatch.setattr(durable, "replace", replace)
    outcome = service.boot(tree.node, Systemd(), journal)
    assert (outcome.result, outcome.total.cleared) == ("failed", 1)
    assert "the marker cannot be written" in outcome.why
    assert not list(tree.state.glob("marker*")), "the next boot makes up for it"


@pytest.mark.parametrize("verdict", ["clean", "running"])
def test_on_a_full_disk_it_is_removed_and_the_next_boot_makes_up_for_it(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    tree.mark(verdict)
    real = os.open

    def full(path: str, flags: int, *rest: object, **options: object) -> int:
        if flags & os.O_CREAT and not os.path.exists(f"/proc/self/fd/{options.get('dir_fd')}/{path}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return real(path, flags, *rest, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", full)
        outcome = service.boot(tree.node, Systemd(), journal)
    assert outcome.result == "failed"
    assert not (tree.state / "marker").exists()
    tree.next_kernel(NEXT)
    assert service.boot(tree.node, Systemd(), journal).judgement.verdict == "unknown"


@pytest.mark.parametrize("what", ["clean", "running", "damaged"])
def test_a_marker_that_must_stay_is_an_error_of_its_own(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    tree.mark(what)
    failing("unlink", monkeypatch, lambda _arguments: True, errno.EROFS)
    failing("rename", monkeypatch, lambda _arguments: True, errno.EROFS)
    service.boot(tree.node, Systemd(), journal)
    stuck = journal.entries[0]
    assert (stuck.message_id, stuck.priority) == (findings.MessageId.MARKER_STUCK, 3)
    assert stuck.message == "The marker of an earlier boot cannot be removed: 'marker': Read-only file system"


def test_a_marker_of_a_directory_is_damaged_and_told_at_each_boot(tree: Tree, journal: Kept) -> None:
    (tree.state / "marker").mkdir(parents=True)
    outcome = service.boot(tree.node, Systemd(), journal)
    assert (outcome.judgement.verdict, outcome.result) == ("damaged", "failed")
    assert record.read(tree.node).outcome is not None
