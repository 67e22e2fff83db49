"""What was found, due and done in, what a run of ``boot`` came to out. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from .errors import printable
from .events import leases
from .findings import Counts, Lease, MessageId, Moved, Network, Outcome, Remark, Reset, Result, Step, Survey, Trouble
from .model import BootId, ClearWhen, Config, Judgement, Verdict
from .plan import draw_up, is_crowded

_NAMED: Final = 20  # leases in a remark: there may be thousands


def conclude(
    boot_id: BootId, judgement: Judgement, settings: Config, found: Survey, steps: tuple[Step, ...], reset: Reset
) -> Outcome:
    """Say what a run came to, why, and what an operator should know besides."""
    troubles, remarks, counts = [*found.troubles, *reset.troubles], [*reset.remarks], {}
    all_due = {step.network for step in steps if not step.torn_only}
    for name, its in found.networks:
        moved = reset.moved.get(name, Moved())
        trouble, unread = moved.trouble, dict[str, str]()
        if name not in all_due:  # one that cannot be read may be torn
            unread = {lease.address: f"unreadable, {lease.unread}" for lease in its if lease.unread}
        if len(unread) == len(its) > 1:  # where none of several can be read it is the network's failure
            trouble, unread = f"{len(its)} leases {unread[its[0].address]}", {}
        troubles += [] if trouble is None else [Trouble(name, trouble, again=True)]
        remarks += of_stuck(name, {**moved.stuck, **unread})
        counts[name] = Counts(len(its), moved.number, len(its) - moved.number, sum(lease.torn for lease in its))
    remarks += (skipped(trouble) for trouble in troubles if not trouble.again)
    remarks += (unlisted(each) for each in found.unlisted if is_crowded(each, settings.max_kept_leases))
    others = tuple((name, len(its)) for name, its in found.unlisted)
    failed = "; ".join(f"{printable(trouble.network)}: {trouble.why}" for trouble in troubles if trouble.again)
    result, why = _result(judgement, settings, found, reset, failed)
    why = why or "; ".join(f"{printable(step.network)}: {step.why}" for step in steps)
    return Outcome(boot_id, judgement, result, why, reset.name, counts, others, tuple(remarks))


def _result(judgement: Judgement, settings: Config, found: Survey, reset: Reset, failed: str) -> tuple[Result, str]:
    """Say what a run came to; the reason is empty where it is the plan's."""
    if reset.refusal is not None:
        return Result.REFUSED, reset.refusal
    if failed:
        return Result.FAILED, failed
    if reset.name is not None:
        return Result.CLEARED, ""
    some = (Lease("0.0.0.0", None, torn=False),)  # nobody knows what is in a network that is none
    maybe = draw_up(judgement, tuple(Network(each.network, some) for each in found.troubles), settings)
    if skipped := [*(step.network for step in maybe), *(each.network for each in reset.troubles)]:
        return Result.NOTHING_DUE, f"{', '.join(map(printable, skipped))} due and skipped"
    if not any(network.found for network in found.networks):
        return Result.NOTHING_DUE, "no leases"
    if judgement.verdict is Verdict.CLEAN and settings.clear_when is ClearWhen.UNCLEAN:
        return Result.NOTHING_DUE, "no torn lease, no crowded network"
    return Result.NOTHING_DUE, f"clear_when: {settings.clear_when}"


def unlisted(network: Network) -> Remark:
    """Name a network that no setting names."""
    text = f"Network {printable(network.name)} holds {leases(len(network.found))}, and no setting names it."
    return Remark(MessageId.NETWORK_UNLISTED, text)


def skipped(trouble: Trouble) -> Remark:
    """Name a network in whose place, or its lock's, is something else."""
    return Remark(MessageId.NETWORK_SKIPPED, f"Network {printable(trouble.network)} is skipped: {trouble.why}.")


def of_stuck(network: str, stuck: Mapping[str, str]) -> Iterator[Remark]:
    """Name the leases that stay where they are, in one remark for each reason."""
    by_reason: dict[str, list[str]] = {}
    for address, why in stuck.items():
        by_reason.setdefault(why, []).append(address)
    for why, its in by_reason.items():
        more = f" and {len(its) - _NAMED} more" if len(its) > _NAMED else ""
        which = f"Lease {its[0]}" if len(its) == 1 else f"Leases {', '.join(its[:_NAMED])}{more}"
        text = f"{which} of {printable(network)} stay{'s' if len(its) == 1 else ''}: {why}, ignoring"
        yield Remark(MessageId.LEASE_STUCK, text)
