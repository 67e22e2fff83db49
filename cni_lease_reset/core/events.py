"""Outcomes in, journal entries out. Pure. Every MESSAGE_ID has an entry in the message catalog."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from .errors import printable
from .findings import MessageId, Outcome, Remark, Result
from .model import Verdict

ERR, WARNING, NOTICE, INFO = 3, 4, 5, 6


class Entry(NamedTuple):
    """A journal entry as data."""

    message_id: str
    priority: int  # syslog's: 3 err, 4 warning, 5 notice, 6 info
    message: str
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def reason(self) -> str:
        """Without one of its own the message is the reason."""
        return dict(self.fields).get("CNI_REASON", self.message)


KINDS: Final = {
    Result.CLEARED: (MessageId.CLEARED, NOTICE),
    Result.NOTHING_DUE: (MessageId.NOTHING_DUE, INFO),
    Result.REFUSED: (MessageId.REFUSED, WARNING),
    Result.FAILED: (MessageId.FAILED, ERR),
    Result.MISCONFIGURED: (MessageId.MISCONFIGURED, ERR),
}


def of_remark(remark: Remark) -> Entry:
    """Write down a remark: a warning, but for the mark that could not be used up."""
    return Entry(remark.about, ERR if remark.about is MessageId.MARKER_STUCK else WARNING, remark.text)


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
        *of_reset(outcome.reset, outcome.networks, total.found, total.cleared),
        ("CNI_LEASES_TORN", str(total.torn)),
        ("CNI_PREVIOUS_BOOT_ID", outcome.judgement.previous or ""),
        ("CNI_USEC", str(outcome.usec)),
    )
    return Entry(message_id, priority, message(outcome), fields)


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
            skipped = any(remark.about is MessageId.NETWORK_SKIPPED for remark in outcome.remarks)
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
        return Entry(MessageId.MARKED_CLEAN, INFO, f"Clean shutdown marked: {why}.")
    return Entry(MessageId.NOT_MARKED, NOTICE, f"Not marked as clean: {why}.")
