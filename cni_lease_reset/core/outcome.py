"""What was found, due and done in, what a run of ``boot`` came to out. Pure."""

from typing import Final

from .errors import printable
from .findings import Counts, Lease, MessageId, Network, Outcome, Remark, Reset, Result, Step, Stuck, Survey, Trouble
from .model import BootId, ClearWhen, Config, Judgement, Verdict
from .plan import draw_up, is_crowded

_NAMED: Final = 20  # leases in a remark: there may be thousands


def conclude(
    boot_id: BootId, judgement: Judgement, settings: Config, found: Survey, steps: tuple[Step, ...], reset: Reset
) -> Outcome:
    """Say what a run came to, why, and what an operator should know besides."""
    reset = _with_unread(found, steps, reset)
    result, why = _result(found, reset, settings, judgement)
    why = why or "; ".join(f"{printable(step.network)}: {step.why}" for step in steps)
    counts = {}
    for name, its in found.networks:
        cleared = reset.cleared.get(name, 0)
        counts[name] = Counts(len(its), cleared, len(its) - cleared, sum(lease.torn for lease in its))
    unlisted = tuple((network.name, len(network.found)) for network in found.unlisted)
    remarks = (*reset.remarks, *_remarks(found, reset, settings))
    return Outcome(boot_id, judgement, result, why, reset.name, counts, unlisted, remarks)


def _with_unread(found: Survey, steps: tuple[Step, ...], reset: Reset) -> Reset:
    """Add the leases that stay and may be torn; where none of several can be read it is the network's failure."""
    all_due = {step.network for step in steps if not step.torn_only}
    for network in found.networks:
        unread = () if network.name in all_due else network.unread
        if len(unread) == len(network.found) > 1:
            trouble = Trouble(network.name, f"{len(unread)} leases {unread[0].why}", again=True)
            reset = reset._replace(troubles=(*reset.troubles, trouble))
        else:
            reset = reset._replace(stuck=reset.stuck + unread)
    return reset


def _result(found: Survey, reset: Reset, settings: Config, judgement: Judgement) -> tuple[Result, str]:
    """Say what a run came to; the reason is empty where it is the plan's."""
    failed = [trouble for trouble in (*found.troubles, *reset.troubles) if trouble.again]
    if reset.refusal is not None:
        return Result.REFUSED, reset.refusal
    if failed:
        return Result.FAILED, "; ".join(f"{printable(trouble.network)}: {trouble.why}" for trouble in failed)
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


def _remarks(found: Survey, reset: Reset, settings: Config) -> tuple[Remark, ...]:
    passed_over = [skipped(each) for each in (*found.troubles, *reset.troubles) if not each.again]
    crowded = [each for each in found.unlisted if is_crowded(each, settings.max_kept_leases)]
    unnamed = (f"Network {printable(name)} holds {len(its)} leases, and no setting names it." for name, its in crowded)
    return (*of_stuck(reset.stuck), *passed_over, *(Remark(MessageId.NETWORK_UNLISTED, text) for text in unnamed))


def skipped(trouble: Trouble) -> Remark:
    """Name a network in whose place, or its lock's, is something else."""
    return Remark(MessageId.NETWORK_SKIPPED, f"Network {printable(trouble.network)} is skipped: {trouble.why}.")


def of_stuck(stuck: tuple[Stuck, ...]) -> tuple[Remark, ...]:
    """Name the leases that stay where they are, in one remark for each network and reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for network, address, why in stuck:
        by_reason.setdefault((network, why), []).append(address)
    remarks = []
    for (network, why), its in by_reason.items():
        more = f" and {len(its) - _NAMED} more" if len(its) > _NAMED else ""
        which = f"Lease {its[0]}" if len(its) == 1 else f"Leases {', '.join(its[:_NAMED])}{more}"
        text = f"{which} of {printable(network)} stay{'s' if len(its) == 1 else ''}: {why}, ignoring"
        remarks.append(Remark(MessageId.LEASE_STUCK, text))
    return tuple(remarks)
