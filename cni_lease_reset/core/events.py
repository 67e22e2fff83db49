"""Outcomes in, journal entries out. Pure. Every MESSAGE_ID has an entry in the message catalog."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

from .errors import printable
from .findings import About, Outcome, Remark, Result
from .model import UNIT, Verdict

ERR, WARNING, NOTICE, INFO = 3, 4, 5, 6


class Entry(NamedTuple):
    """A journal entry as data."""

    message_id: str
    priority: int  # syslog's: 3 err, 4 warning, 5 notice, 6 info
    message: str
    fields: tuple[tuple[str, str], ...] = ()


class MessageId(StrEnum):
    """One for each kind of event, for good: monitoring matches them."""

    CLEARED = "8e2f1f0e7a6d4f0c9f0f6e3a5a0c1b01"
    NOTHING_DUE = "3c5b9f5d2c8e4a7fb1d06d0f4be2a902"
    SAME_BOOT = "b7d3a1c94e5f4d1c8a27f35e6c9d0e03"
    REFUSED = "5f0a6c2d9b134c7ea8e14d7b2f3c8a04"
    FAILED = "d41e8b7f3a2c4596bc0d9e8f1a7b6c05"
    MISCONFIGURED = "92c7e4a05d1b4f38a6f3b0c8d7e2f106"
    BUSY = "e60b3d8c7f2a49158d4c1a9e5b6f7007"
    MARKER_STUCK = "1a9d5c3e8b7f4602957e2d4c6f8a0b08"
    WITHOUT_DBUS = "7f4c2b1a9e8d45638b5a0f3d6c7e1909"
    NETWORK_SKIPPED = "c83a7e5f1d2b49609e4f8a6b5c0d7f10"
    NETWORK_UNLISTED = "4d6f9b2a8c1e4735a0b7c5e3f9d81211"
    IGNORED = "a5e8c1d7f3b24960b8d2e6f4071c9a12"
    UNEXPECTED = "6b2d8f4a0c9e41738f5e1c7a3d9b0e13"
    MARKED_CLEAN = "f19c5e7b3d8a4260a4c6e8f0b2d71314"
    NOT_MARKED = "0e7a3c9f5b1d48629d8b4f6e2c0a7515"
    RECOVERED = "b94d2e7c1f6a4380a5d3c8e1f7b09216"
    NOT_RECOVERED = "3f8a6c0d9e2b4571b7e4f1a8c5d36017"
    RESTORED = "d05b7f3e8c9a4126938f2d6b1e4c7a18"
    LEASE_STUCK = "2c7e9a4f1b6d4835a1c0f8d3e5b72619"
    NO_RUNTIME = "8b1f6d3a9c5e4270b4e7a2c9d0f18320"


KINDS: Final = {
    Result.CLEARED: (MessageId.CLEARED, NOTICE),
    Result.NOTHING_DUE: (MessageId.NOTHING_DUE, INFO),
    Result.REFUSED: (MessageId.REFUSED, WARNING),
    Result.FAILED: (MessageId.FAILED, ERR),
    Result.MISCONFIGURED: (MessageId.MISCONFIGURED, ERR),
}


def of_remark(remark: Remark) -> Entry:
    """Write down a remark: a warning, but for the mark that could not be used up."""
    priority = ERR if remark.about is About.MARKER_STUCK else WARNING
    return entry(MessageId[remark.about.name], priority, remark.text)


def verdict(outcome: Outcome) -> Entry:
    """Write down the one entry that each run of ``boot`` leaves."""
    message_id, priority = KINDS[outcome.result]
    total = outcome.total
    if outcome.result is Result.NOTHING_DUE and outcome.judgement.verdict is Verdict.SAME_BOOT:
        message_id = MessageId.SAME_BOOT
    elif outcome.judgement.verdict in (Verdict.UNCLEAN, Verdict.DAMAGED):
        priority = min(priority, NOTICE)  # worth a line of its own, even where no lease leaked
    fields = (
        ("CNI_VERDICT", outcome.judgement.verdict),
        ("CNI_REASON", f"{outcome.judgement.why}; {outcome.why}{_not_configured(outcome)}"),
        *of_reset(outcome.reset, [network.name for network in outcome.networks], total.found, total.cleared),
        ("CNI_LEASES_TORN", str(total.torn)),
        ("CNI_PREVIOUS_BOOT_ID", outcome.judgement.previous or ""),
        ("CNI_USEC", str(outcome.usec)),
    )
    return entry(message_id, priority, message(outcome), fields)


def of_reset(reset: str | None, networks: Iterable[str], found: int, cleared: int) -> tuple[tuple[str, str], ...]:
    """Write down in fields what was set aside, and of how many."""
    return (
        ("CNI_RESET", reset or ""),
        *(("CNI_NETWORK", printable(network)) for network in networks),
        ("CNI_LEASES_FOUND", str(found)),
        ("CNI_LEASES_CLEARED", str(cleared)),
        ("CNI_LEASES_KEPT", str(found - cleared)),
    )


def message(outcome: Outcome) -> str:
    """Say in one line how the last boot ended and what came of it."""
    lead = outcome.judgement.brief.capitalize()
    total, others = outcome.total, _not_configured(outcome)
    match outcome.result:
        case Result.CLEARED:
            return f"{lead}: {leases(total.cleared)} set aside as {outcome.reset}, {total.kept} kept{others}."
        case Result.NOTHING_DUE if outcome.judgement.verdict is Verdict.SAME_BOOT:
            return f"{lead}: the kernel never went down, pods may live; nothing set aside."
        case Result.NOTHING_DUE:
            skipped = any(remark.about is About.NETWORK_SKIPPED for remark in outcome.remarks)
            to = "" if skipped else "to "
            return f"{lead}: nothing {to}set aside ({outcome.why}), {leases(total.kept)} kept{others}."
        case Result.FAILED:
            return f"{lead}, not all was done: {outcome.why}"
    return f"{lead}, leases kept: {outcome.why}"  # refused, or misconfigured


def _not_configured(outcome: Outcome) -> str:
    """Count the leases that no setting names: a mistyped name must not be a silent no-op."""
    counts = (f"{printable(name)} {number}" for name, number in outcome.unlisted)
    return f"; not configured: {', '.join(counts)}" if outcome.unlisted else ""


def leases(number: int) -> str:
    """Count leases in words."""
    return f"{number} lease" if number == 1 else f"{number} leases"


def of_shutdown(*, marked: bool, why: str) -> Entry:
    """Write down what ``shutdown`` did with the marker."""
    if marked:
        return entry(MessageId.MARKED_CLEAN, INFO, f"Clean shutdown marked: {why}.")
    return entry(MessageId.NOT_MARKED, NOTICE, f"Not marked as clean: {why}.")


def entry(message_id: str, priority: int, text: str, fields: tuple[tuple[str, str], ...] = ()) -> Entry:
    """Write down one event; without a reason of its own the text is the reason."""
    # A process that exits at once can lose its unit in `journalctl -u`: name it.
    unit = ("OBJECT_SYSTEMD_UNIT", UNIT)
    whole = () if any(name == "CNI_REASON" for name, _ in fields) else (("CNI_REASON", text),)
    return Entry(message_id, priority, text, (*fields, *whole, unit))
