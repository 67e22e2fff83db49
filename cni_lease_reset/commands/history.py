"""``history``: what the journal still knows of earlier boots, a line each. Changes nothing."""

import glob
import json
import subprocess
from typing import Final, NamedTuple

from ..core.errors import InputOutputError, printable
from ..core.events import KINDS, leases
from ..core.findings import MessageId, Result
from ..core.model import Verdict
from ..edges.node import Node
from . import foreign
from .screen import local

VERSION: Final = 1  # of the JSON; changed when a name goes or changes its meaning
_JOURNALCTL: Final = "/usr/bin/journalctl"
_RESULTS: Final[dict[str, str]] = {kind: result for result, (kind, _) in KINDS.items()} | {
    MessageId.SAME_BOOT: Result.NOTHING_DUE,
    MessageId.UNEXPECTED: "fault",
}
# What came of a boot is worth a word where it did not do all that was due.
_NOTES: Final = {Result.REFUSED: "refused", Result.FAILED: "failed", Result.MISCONFIGURED: "config", "fault": "fault"}


class Boot(NamedTuple):
    """One boot as its verdict entry tells it and ``--json`` shows it; ``None`` where the entry does not say."""

    time: float  # seconds since 1970, by the clock of that boot
    boot_id: str
    verdict: str | None
    result: str
    reason: str
    reset: str | None
    previous_boot_id: str | None
    leases: dict[str, int | None]  # found, cleared, kept, torn
    usec: int | None


class History(NamedTuple):
    """The boots of the journal, newest first."""

    boots: tuple[Boot, ...]
    volatile: bool  # the journal is lost at each boot: journald keeps it under /run, or none under /var/log
    remarks: tuple[str, ...]  # what journalctl had to say

    @property
    def summary(self) -> tuple[int, int, list[int]]:
        """Boots after an unclean shutdown, leases that leaked, and those found at each boot, oldest first."""
        unclean = sum(boot.verdict in (Verdict.UNCLEAN, Verdict.DAMAGED) for boot in self.boots)
        leaked = sum(boot.leases["cleared"] or 0 for boot in self.boots)
        return unclean, leaked, [found for boot in reversed(self.boots) if (found := boot.leases["found"]) is not None]


def read(node: Node) -> History:
    """Read the journal of the node. Raises :class:`InputOutputError` where that is not possible."""
    root = [] if node.is_this_machine else [f"--root={node.root}"]
    # Anybody may send an entry with our MESSAGE_ID; journald itself notes who did.
    ours = [*(f"MESSAGE_ID={each}" for each in _RESULTS), "_UID=0"]
    command = [_JOURNALCTL, "--no-pager", "--output=json", *root, *ours]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError as error:
        raise InputOutputError(f"the journal cannot be read: '{_JOURNALCTL}': {error.strerror}") from error
    remarks = [printable(line.decode(errors="replace")) for line in done.stderr.splitlines()]
    if done.returncode != 0:
        raise InputOutputError(f"the journal cannot be read: {' '.join(remarks[:1]) or 'journalctl failed'}")
    # The system's own journal lies below its machine id; what has a namespace in its name is another's.
    journals = f"{'[0-9a-f]' * 32}/*.journal*"
    lost, kept = (glob.glob(journals, root_dir=node.path(f"{each}/log/journal")) for each in ("/run", "/var"))
    return History(parse(done.stdout), bool(lost) or not kept, tuple(remarks[:5]))


def parse(lines: bytes) -> tuple[Boot, ...]:
    """Read journalctl's JSON, oldest entry first; a boot's first verdict counts. What is no entry is left out."""
    boots: dict[str, Boot] = {}
    for line in lines.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        boot = _boot(entry)
        if boot is not None:
            boots.setdefault(boot.boot_id, boot)
    return tuple(reversed(boots.values()))


def _boot(entry: object) -> Boot | None:
    result, boot_id = _RESULTS.get(_text(entry, "MESSAGE_ID")), _text(entry, "_BOOT_ID")
    if result is None or not boot_id:
        return None
    return Boot(
        (_number(entry, "__REALTIME_TIMESTAMP") or 0) / 1_000_000,
        boot_id,
        _text(entry, "CNI_VERDICT") or None,
        result,
        _text(entry, "CNI_REASON"),
        _text(entry, "CNI_RESET") or None,
        _text(entry, "CNI_PREVIOUS_BOOT_ID") or None,
        {each: _number(entry, f"CNI_LEASES_{each.upper()}") for each in ("found", "cleared", "kept", "torn")},
        _number(entry, "CNI_USEC"),
    )


def _text(entry: object, field: str) -> str:
    """Return a field's text, fit for a terminal; one that is not UTF-8 or comes twice is none of ours."""
    return printable(foreign.get(entry, field, str))


def _number(entry: object, field: str) -> int | None:
    text = _text(entry, field)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def as_json(history: History) -> str:
    """Write the boots for programs; docs/operating.md has the names."""
    unclean, leaked, trend = history.summary
    document = {
        "version": VERSION,
        "volatile": history.volatile,
        "boots": [boot._asdict() | {"time": local(boot.time, iso=True)} for boot in history.boots],
        "summary": {"boots": len(history.boots), "unclean": unclean, "leaked": leaked, "leases_at_boot": trend},
        "remarks": history.remarks,
    }
    return json.dumps(document, indent=2) + "\n"


def as_text(history: History) -> str:
    """Write the boots for people, at 80 columns."""
    lines = [f"{'When':<27}{'Boot':<10}{'Last boot':<9}{'Found':>6}{'Aside':>7}{'Kept':>6}{'Took':>7}"]
    lines += [_line(boot) for boot in history.boots]
    unclean, leaked, found = history.summary
    number = len(history.boots)
    boots = f"{number} boot{'s' if number > 1 else ''}, {unclean} after an unclean shutdown"
    none = ["(no boot of cni-lease-reset is in the journal)"]
    lines += ["", f"{boots}; {leases(leaked)} leaked and set aside."] if number else none
    if len(found) > 1:
        lines.append(f"Leases at boot: {found[0]} then, {found[-1]} now, {max(found)} at most.")
    if history.volatile:
        lines += ["", "The journal is volatile: it is lost at each boot. To keep it from now on:"]
        lines += ["mkdir /var/log/journal && journalctl --flush, see Storage= in journald.conf(5)"]
    lines += ["", *(f"journalctl says: {remark}" for remark in history.remarks)] if history.remarks else []
    return "".join(f"{line}\n" for line in lines)


def _line(boot: Boot) -> str:
    found, aside, kept, _ = ["-" if number is None else str(number) for number in boot.leases.values()]
    took = "-" if boot.usec is None else f"{boot.usec / 1000:.0f}ms"
    when, verdict = f"{local(boot.time):<27}{boot.boot_id[:8]:<10}", f"{boot.verdict or '-':<9.9}"
    return f"{when}{verdict}{found:>6}{aside:>7}{kept:>6}{took:>7} {_NOTES.get(boot.result, '')}".rstrip()
