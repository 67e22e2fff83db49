"""Real journal files, made of the program's own entries with systemd-journal-remote, and read with journalctl."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import GOLDEN, HostLocal, Kept, Systemd, Tree
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import command

from cni_lease_reset import cli, service
from cni_lease_reset.commands import history
from cni_lease_reset.core import events
from cni_lease_reset.core.errors import InputOutputError
from cni_lease_reset.core.events import Entry
from cni_lease_reset.core.findings import Counts, MessageId, Outcome, Result
from cni_lease_reset.core.model import BootId, Judgement, Verdict
from cni_lease_reset.edges.journald import serialise
from cni_lease_reset.edges.node import Node

VALUES = st.sampled_from(("9" * 18, "-1", "unclean")) | st.text() | st.none() | st.lists(st.integers())
ENTRIES = st.dictionaries(
    st.sampled_from(("_BOOT_ID", "__REALTIME_TIMESTAMP", "CNI_VERDICT", "CNI_LEASES_FOUND", "CNI_USEC")), VALUES
)
REMOTE = next(p for p in ("/usr/lib/systemd", "/lib/systemd") if os.access(f"{p}/systemd-journal-remote", os.X_OK))
MACHINE = "0123456789abcdef0123456789abcdef"
FIRST = 1_761_886_800  # 2025-10-31 05:00 UTC
DAY = 86_400


def boot_id(number: int) -> BootId:
    return BootId(f"{number:08x}-0000-4000-8000-000000000000")


def exported(number: int, entry: Entry, user: int = 0, seconds: int | None = None) -> bytes:
    """An entry of a boot as journald keeps it; its native protocol and the export format write fields alike."""
    when = (FIRST + number * DAY if seconds is None else seconds) * 1_000_000
    trusted = f"__REALTIME_TIMESTAMP={when}\n__MONOTONIC_TIMESTAMP={9_000_000}\n_BOOT_ID={boot_id(number).replace('-', '')}\n_UID={user}\n"
    return trusted.encode() + serialise(entry) + b"\n"


def keep(root: Path, *entries: bytes, below: str = "var/log/journal") -> None:
    """Make a journal of entries."""
    folder = root / below / MACHINE
    folder.mkdir(parents=True)
    command = [f"{REMOTE}/systemd-journal-remote", f"--output={folder}/system.journal", "-"]
    subprocess.run(command, input=b"".join(entries), capture_output=True, check=True)


def outcome(number: int, verdict: Verdict, result: Result, found: int, cleared: int, torn: int = 0) -> Outcome:
    judgement = Judgement(verdict, "why", boot_id(number - 1) if number else None)
    reset = f"{number}-20251101T050000Z-{boot_id(number)[:8]}" if cleared else None
    networks = {"k8s-pod-network": Counts(found, cleared, found - cleared, torn)}
    return Outcome(boot_id(number), judgement, result, "what was due", reset, networks, usec=4000 + 100 * number)


TEN = [
    outcome(0, Verdict.UNKNOWN, Result.NOTHING_DUE, 0, 0),
    outcome(1, Verdict.CLEAN, Result.NOTHING_DUE, 34, 0),
    outcome(2, Verdict.CLEAN, Result.NOTHING_DUE, 41, 0),
    outcome(3, Verdict.UNCLEAN, Result.REFUSED, 58, 0),
    outcome(4, Verdict.UNCLEAN, Result.CLEARED, 92, 92, 4),
    outcome(5, Verdict.CLEAN, Result.CLEARED, 37, 2, 2),
    outcome(6, Verdict.UNCLEAN, Result.FAILED, 44, 0),
    outcome(7, Verdict.DAMAGED, Result.MISCONFIGURED, 0, 0),
    outcome(8, Verdict.UNCLEAN, Result.CLEARED, 253, 253),
    outcome(9, Verdict.CLEAN, Result.NOTHING_DUE, 36, 0),
]


@pytest.fixture
def ten(tmp_path: Path) -> Node:
    keep(tmp_path, *(exported(number, events.verdict(each)) for number, each in enumerate(TEN)))
    return Node(str(tmp_path))


def test_ten_boots_are_ten_lines_newest_first(ten: Node) -> None:
    done = command(ten, "history")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (GOLDEN / "history.txt").read_text()
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_programs_get_numbers(ten: Node) -> None:
    document = json.loads(command(ten, "history", "--json").stdout)
    assert len(document["boots"]) == 10
    assert document["boots"][0] == {
        "time": "2025-11-09T06:00:00+0100",
        "boot_id": boot_id(9).replace("-", ""),
        "verdict": "clean",
        "result": "nothing-due",
        "reason": "why; what was due",
        "reset": None,
        "previous_boot_id": boot_id(8),
        "leases": {"found": 36, "cleared": 0, "kept": 36, "torn": 0},
        "usec": 4900,
    }
    trend = [0, 34, 41, 58, 92, 37, 44, 0, 253, 36]
    assert document["summary"] == {"boots": 10, "unclean": 5, "leaked": 347, "leases_at_boot": trend}
    assert (document["version"], document["volatile"], document["remarks"]) == (1, False, [])


def test_what_boots_said_on_a_real_pool_is_what_history_tells(
    tree: Tree, journal: Kept, host_local: HostLocal, tmp_path: Path
) -> None:
    kept = []
    for number, clean in enumerate((True, False, True, False)):
        tree.next_kernel(boot_id(number))
        service.boot(tree.node, Systemd(), journal)
        for pod in range(3):
            host_local.add(f"{number}-{pod}")
        service.boot(tree.node, Systemd(), journal)  # a restart of the service: no boot of its own
        if clean:
            service.shutdown(tree.node, Systemd(), journal)
        kept += [exported(number, entry) for entry in journal.entries]
        journal.entries.clear()
    keep(tmp_path / "journal", *kept)
    found = history.read(Node(str(tmp_path / "journal")))
    assert [boot.verdict for boot in found.boots] == ["clean", "unclean", "clean", "unknown"]
    assert found.summary == (1, 6, [0, 3, 6, 3])


def test_nobody_but_root_can_forge_a_boot(tmp_path: Path) -> None:
    keep(tmp_path, exported(1, events.verdict(TEN[1])), exported(2, events.verdict(TEN[8]), user=1000))
    assert [boot.verdict for boot in history.read(Node(str(tmp_path))).boots] == ["clean"]


def test_a_boot_that_came_to_no_verdict_is_told(tmp_path: Path) -> None:
    keep(
        tmp_path,
        exported(1, Entry(MessageId.FAILED, events.ERR, "no boot id", (("CNI_VERDICT", "unknown"),))),
        exported(2, Entry(MessageId.UNEXPECTED, events.ERR, "ZeroDivisionError")),
    )
    text = history.as_text(history.read(Node(str(tmp_path))))
    assert "-      -     -      - fault\n" in text
    assert "unknown       -      -     -      - failed\n" in text
    assert "Leases at boot" not in text


def test_a_volatile_journal_is_told(tmp_path: Path) -> None:
    keep(tmp_path, exported(1, events.verdict(TEN[4])), below="run/log/journal")
    node = Node(str(tmp_path))
    done = command(node, "history")
    assert "The journal is volatile" in done.stdout
    assert "00000001" in done.stdout
    keep(tmp_path, exported(0, events.verdict(TEN[0])))
    assert history.read(node).volatile  # Storage=volatile was set later: what is under /var/log grows no more


def test_no_journal_at_all_is_an_answer_too(tmp_path: Path) -> None:
    done = command(Node(str(tmp_path)), "history")
    assert done.returncode == 0
    assert "(no boot of cni-lease-reset is in the journal)" in done.stdout
    assert "The journal is volatile" in done.stdout


def test_a_broken_journal_file_is_told_and_the_others_are_read(ten: Node) -> None:
    (Path(ten.root) / f"var/log/journal/{MACHINE}/user-1000.journal").write_text("garbage")
    done = command(ten, "history")
    assert done.returncode == 0
    assert "journalctl says: " in done.stdout
    assert "10 boots" in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b'{"MESSAGE_ID": "x", "_BOOT_ID": "y"}',
        b'{"MESSAGE_ID": null, "_BOOT_ID": ["a", "b"]}',
    ],
)
def test_what_is_no_entry_is_left_out(line: bytes) -> None:
    assert history.parse(line) == ()


def test_an_entry_with_odd_fields_is_still_a_boot() -> None:
    odd = {"MESSAGE_ID": MessageId.CLEARED, "_BOOT_ID": "b\x1b", "__REALTIME_TIMESTAMP": "9" * 18}
    entry = {**odd, "CNI_LEASES_FOUND": "²", "CNI_LEASES_CLEARED": [1, 2], "CNI_USEC": "-1"}
    boots = history.parse(json.dumps(entry).encode())
    text = history.as_text(history.History(boots, volatile=False, remarks=()))
    assert "\x1b" not in text
    assert boots[0].leases["found"] is None


def test_without_journalctl_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_JOURNALCTL", "/nowhere/journalctl")
    with pytest.raises(InputOutputError, match="'/nowhere/journalctl': No such file or directory"):
        history.read(Node(str(tmp_path)))
    monkeypatch.setattr(history, "_JOURNALCTL", "/bin/false")
    with pytest.raises(InputOutputError, match="journalctl failed"):
        history.read(Node(str(tmp_path)))


def test_this_machines_journal_is_asked_without_a_root(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["history", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1


def test_a_reader_that_has_seen_enough_ends_it_quietly(ten: Node) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    call = [sys.executable, "-m", "cni_lease_reset", "--root", ten.root, "history"]
    done = subprocess.run(call, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@settings(deadline=None)
@given(entry=ENTRIES)
def test_an_entry_of_the_journal_is_a_line_or_left(entry: dict[str, object]) -> None:
    entry = {"MESSAGE_ID": MessageId.CLEARED, "_BOOT_ID": "b", **entry}
    found = history.History(history.parse(json.dumps(entry).encode()), volatile=False, remarks=())
    assert json.loads(history.as_json(found))["version"] == 1
    shown = history.as_text(found)
    assert shown.replace("\n", "").isprintable()
