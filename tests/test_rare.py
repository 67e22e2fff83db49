"""What seldom happens: disks that are full or read-only, records that cannot be read, files that vanish."""

import errno
import json
import os
from pathlib import Path
from typing import cast

import pytest
from conftest import NEXT, OTHER, THIS, Kept, Systemd, Tree, failing
from reported import gathered, shown

from cni_lease_reset import cli, service
from cni_lease_reset.commands import display
from cni_lease_reset.commands.screen import Screen
from cni_lease_reset.core import events
from cni_lease_reset.core.errors import describe, printable
from cni_lease_reset.core.model import BootId, Config, Marker, Outcome, State
from cni_lease_reset.core.verdict import judge
from cni_lease_reset.edges import durable, leases, record, shelf
from cni_lease_reset.edges.systemd import NoSystemd


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
    assert (outcome.result, outcome.cleared) == ("failed", 1)
    assert "the marker cannot be written" in outcome.why
    assert OTHER in tree.marker()
    assert not (tree.state / "marker.new").exists()


@pytest.mark.parametrize("verdict", ["clean", "running"])
def test_on_a_full_disk_a_clean_mark_is_removed_and_any_other_stays(
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
    assert (tree.state / "marker").exists() is (verdict == "running")
    tree.next_kernel(NEXT)
    again = service.boot(tree.node, Systemd(), journal)
    assert again.judgement.verdict == ("unknown" if verdict == "clean" else "unclean")


def test_a_clean_mark_that_must_stay_is_an_error_of_its_own(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.mark("clean")
    failing("unlink", monkeypatch, lambda _arguments: True, errno.EROFS)
    failing("rename", monkeypatch, lambda _arguments: True, errno.EROFS)
    service.boot(tree.node, Systemd(), journal)
    stuck = journal.entries[0]
    assert (stuck.message_id, stuck.priority) == (events.MessageId.MARKER_STUCK, 3)
    assert stuck.message == "The clean mark cannot be used up: 'marker': Read-only file system"


def test_an_outcome_that_cannot_be_kept_is_told(tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "boot.new")

    monkeypatch.setattr(record, "finish", refuse)
    assert service.boot(tree.node, Systemd(), journal).result == "nothing-due"
    assert "cannot be kept for status: 'boot.new': No space left on device, ignoring" in journal.entries[0].message


def test_old_resets_that_cannot_be_removed_are_told(tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.config("keep_resets: 1\n")
    for number in (1, 2):
        (tree.state / f"set-aside/{number}-20261123T061201Z-22222222/net").mkdir(parents=True)
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
    service.boot(tree.node, Systemd(), journal)
    assert len(tree.set_aside()) == 5
    assert sum(path.is_file() for path in (tree.state / "set-aside").rglob("*")) == 17
    tree.next_kernel(NEXT)
    service.boot(tree.node, Systemd(), journal)
    assert sorted(path.name[0] for path in (tree.state / "set-aside").iterdir()) == ["2", "3", "4"]


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
    assert (outcome.result, outcome.cleared) == ("failed", 1)


def test_a_lease_that_a_del_removes_meanwhile_is_left_out(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3")
    real = durable.content

    def content(parent: int, name: str, limit: int) -> bytes:
        if name == "10.52.0.2":
            os.unlink(name, dir_fd=parent)
        return real(parent, name, limit)

    monkeypatch.setattr(durable, "content", content)
    assert leases.survey(tree.node, Config()).networks[0].leases == 1


def test_nor_does_it_count_where_all_are_due(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3")
    real = leases._names

    def names(network: int) -> list[str]:
        found = real(network)
        os.unlink("10.52.0.2", dir_fd=network)
        return found

    monkeypatch.setattr(leases, "_names", names)
    assert leases.survey(tree.node, Config(), sizes_only=True).networks[0].leases == 1


def test_what_cannot_be_read_is_named(tree: Tree) -> None:
    (tree.root / "place/folder").mkdir(parents=True)
    with durable.directory("/place", root=tree.node.root) as place, pytest.raises(IsADirectoryError) as error:
        durable.content(place, "folder", 1)
    assert error.value.filename == "folder"


def test_leases_in_another_data_directory_are_set_aside_beside_it(tree: Tree, journal: Kept) -> None:
    tree.config("data_dir: /data/cni/nets\n")
    lease = tree.root / "data/cni/nets/k8s-pod-network/10.52.0.2"
    lease.parent.mkdir(parents=True)
    lease.touch()
    reset = service.boot(tree.node, Systemd(), journal).reset
    assert (tree.root / f"data/cni/cni-lease-reset/set-aside/{reset}/k8s-pod-network/10.52.0.2").exists()


RECORDS = [b"", b"[]", b"{}", b'{"boot_id": 1, "x": 2}', b"\xff", b"[" * 100_000, b'{"boot_id": "x", "verdict": "odd"}']


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
    assert record.read(tree.node) == outcome
    assert json.loads(display.as_json(gathered(tree)))["boot"]["leases"]["cleared"] == 1


def test_status_says_what_it_could_not_read(tree: Tree) -> None:
    (tree.root / "proc/sys/kernel/random/boot_id").unlink()
    tree.data.parent.mkdir(parents=True)
    tree.data.write_text("")
    tree.state.write_text("")
    text = shown(tree)
    assert text.count("Not read: ") == 3, "each thing once"
    assert "Marker      not known: its directory cannot be read" in text
    assert "(see below what could not be read)" in text
    report = gathered(tree)
    assert report.pending is None
    assert json.loads(display.as_json(report))["marker"] == {"state": "unread"}


def test_status_tells_each_state_of_affairs(tree: Tree, journal: Kept) -> None:
    assert "none: the next boot cannot tell how this one ended" in shown(tree)
    record.begin(tree.node, THIS)
    assert "boot began and did not end" in shown(tree)
    record.begin(tree.node, OTHER)
    assert "the record under /run is of another boot" in shown(tree)
    tree.mark("clean")
    tree.lease("10.60.0.1", network="other")
    assert "clean since 2026-11-23T06:12:01Z (another boot, 22222222)" in shown(tree)
    assert "not configured: other 1" in shown(tree)
    (tree.state / "marker").write_text("")
    report = gathered(tree)
    assert "damaged: it is empty" in display.as_text(report, Screen())
    assert json.loads(display.as_json(report))["marker"] == {"state": "damaged", "reason": "it is empty"}
    (tree.state / "marker").unlink()
    assert json.loads(display.as_json(gathered(tree)))["marker"] == {"state": "none"}


def test_a_rehearsal_needs_no_state_and_finds_nothing_to_do(tree: Tree) -> None:
    assert service.rehearse(tree.node, NoSystemd()).endswith("\nNothing to set aside.\n")
    tree.network.parent.mkdir(parents=True)
    tree.network.symlink_to("/")
    tree.lease("10.60.0.1", network="other")
    record.begin(tree.node, THIS)
    assert service.rehearse(tree.node, NoSystemd()).splitlines()[1:] == [
        "Skipped: k8s-pod-network: not a directory (a symbolic link is not followed).",
        "Not configured: other 1.",
        "Nothing to set aside.",
        "That says nothing of the next boot: cni-lease-reset status tells whether a reset is pending.",
    ]


def test_below_a_root_no_systemd_runs(tree: Tree, journal: Kept) -> None:
    tree.lease("10.52.0.2")
    assert service.boot(tree.node, NoSystemd(), journal).result == "cleared"
    assert not service.shutdown(tree.node, NoSystemd(), journal)


def test_what_others_wrote_is_never_printed_raw() -> None:
    assert printable("a\x1b[31m\n\udcff") == "a\\x1b[31m\\n\\udcff"
    assert describe(OSError(errno.EIO, "Input/output error", "a\nb")) == "'a\\nb': Input/output error"
    assert describe(OSError("odd")) == "odd"
    assert describe(OSError(errno.EISDIR, "Is a directory", "m.new", None, "m")) == "'m.new' -> 'm': Is a directory"


def test_a_marker_of_a_directory_is_damaged_and_told_at_each_boot(tree: Tree, journal: Kept) -> None:
    (tree.state / "marker").mkdir(parents=True)
    outcome = service.boot(tree.node, Systemd(), journal)
    assert (outcome.judgement.verdict, outcome.result) == ("damaged", "failed")
    assert isinstance(record.read(tree.node), Outcome)


def test_a_file_on_the_way_is_named_with_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    with pytest.raises(NotADirectoryError) as caught, durable.directory("/var/lib", root=str(tmp_path)):
        pass
    assert caught.value.filename == f"{tmp_path}/var"


def test_several_networks_go_into_one_reset(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.lease("10.53.0.2", network="cbr0")
    outcome = service.boot(tree.node, Systemd(), journal)
    assert (outcome.cleared, len(list((tree.state / "set-aside").iterdir()))) == (2, 1)


def test_a_shutdown_without_a_marker_changes_nothing(tree: Tree, journal: Kept) -> None:
    tree.state.mkdir(parents=True)
    assert not service.shutdown(tree.node, Systemd(), journal)
    assert journal.entries[-1].message == "Marker left as it is: there is no marker, boot did not complete."
    assert not (tree.state / "marker").exists()


def test_a_shutdown_that_cannot_write_ends_in_74_with_one_line(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service.boot(tree.node, Systemd(), journal)
    before = tree.marker()
    failing("rename", monkeypatch, lambda _arguments: True, errno.EIO)
    assert cli.main(["--root", str(tree.root), "shutdown", "--force"]) == 74
    assert capsys.readouterr().err == "cni-lease-reset: 'marker.new': Input/output error\n"
    assert tree.marker() == before


def test_a_dry_run_of_the_command_prints_its_answer(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    assert cli.main(["--root", str(tree.root), "boot", "--dry-run"]) == 0
    assert "Would set aside: 1 lease of k8s-pod-network (unclean shutdown)." in capsys.readouterr().out
    assert tree.leases() == {"10.52.0.2"}


def test_a_state_that_nobody_knows_is_no_verdict() -> None:
    with pytest.raises(AssertionError):
        judge(cast(Marker, object()), THIS, ran_before=False)
    with pytest.raises(AssertionError):
        judge(Marker(cast(State, "odd"), OTHER, ""), THIS, ran_before=False)
