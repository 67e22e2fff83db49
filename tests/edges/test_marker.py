"""The marker: strict to read, durable to write, and never clean by mistake."""

import errno
import os
from pathlib import Path

import pytest
from conftest import OTHER, THIS
from hypothesis import given
from hypothesis import strategies as st

from cni_lease_reset.core.model import DamagedMarker, Marker, NoMarker, State
from cni_lease_reset.edges import durable, marker

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
        (GOOD.replace(b"22222222-", b"2222222-"), "no UUID"),
        (GOOD.replace(b"T06", b" 06"), "no time"),
        (b"\xff\xfe\0", "not text"),
        (b"#" * 5000, "longer"),
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
def test_what_is_no_file_is_damaged(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "marker"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        (tmp_path / "elsewhere").write_bytes(GOOD)
        path.symlink_to("elsewhere")
    with durable.directory("/", root=str(tmp_path)) as state:
        assert marker.read(state) == DamagedMarker("reading it fails: Not a regular file")


def test_a_missing_one_is_none(tmp_path: Path) -> None:
    with durable.directory("/", root=str(tmp_path)) as state:
        assert marker.read(state) == NoMarker()


def test_a_clean_mark_is_removed_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "marker").write_bytes(GOOD)
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.path.samestat(os.fstat(fd), tmp_path.stat())))
    with durable.directory("/", root=str(tmp_path)) as state:
        marker.take(state, marker.read(state), None)
        assert marker.read(state) == NoMarker()
    assert synced == [True], "or the crash may bring it back"


def test_the_write_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with durable.directory("/", root=str(tmp_path)) as state:
        marker.record(state, State.RUNNING, THIS)
    assert order == ["fsync file", "rename", "fsync directory"]
    assert [path.name for path in tmp_path.iterdir()] == ["marker"]
    assert (tmp_path / "marker").stat().st_mode & 0o777 == 0o644


def test_a_call_that_knows_only_a_descriptor_fails_with_the_files_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with durable.directory("/", root=str(tmp_path)) as state, pytest.raises(OSError, match=r"'marker\.new'"):
        marker.record(state, State.RUNNING, THIS)


def test_a_left_over_temporary_file_or_link_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "marker.new").symlink_to(victim)
    with durable.directory("/", root=str(tmp_path)) as state:
        marker.record(state, State.RUNNING, THIS)
        assert isinstance(marker.read(state), Marker)
    assert victim.read_text() == "mine"


def test_a_clean_mark_that_cannot_be_replaced_is_removed(tmp_path: Path) -> None:
    (tmp_path / "marker").write_bytes(GOOD)
    (tmp_path / "marker.new").mkdir()  # neither a file can be made there, nor this unlinked
    with durable.directory("/", root=str(tmp_path)) as state:
        assert marker.take(state, marker.read(state), THIS) is None
        assert marker.read(state) == NoMarker()


def test_without_a_boot_id_a_clean_mark_is_removed(tmp_path: Path) -> None:
    (tmp_path / "marker").write_bytes(GOOD)
    with durable.directory("/", root=str(tmp_path)) as state:
        assert marker.take(state, marker.read(state), None) is None
        assert marker.read(state) == NoMarker()


def test_a_clean_mark_that_must_stay_is_told(tmp_path: Path) -> None:
    with durable.directory("/", root=str(tmp_path)) as state:
        (tmp_path / "marker.new").mkdir()
        told = marker.take(state, Marker(State.CLEAN, OTHER, "2026-11-23T06:12:01Z"), THIS)  # there is none to remove
    assert told == "'marker': No such file or directory"
