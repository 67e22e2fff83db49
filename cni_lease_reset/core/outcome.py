"""What was found, due and done in, what a run of ``boot`` came to out. Pure."""

from .errors import printable
from .model import (
    About,
    BootId,
    ClearWhen,
    Config,
    Judgement,
    NetworkOutcome,
    Outcome,
    Remark,
    Reset,
    Result,
    Step,
    Survey,
    Verdict,
)
from .plan import is_crowded


def conclude(
    boot_id: BootId, judgement: Judgement, settings: Config, found: Survey, steps: tuple[Step, ...], reset: Reset
) -> Outcome:
    """Say what a run came to, why, and what an operator should know besides."""
    result, why = _result(found, reset, settings, judgement.verdict)
    due = "; ".join(f"{printable(step.network)}: {step.why}" for step in steps)
    return Outcome(
        boot_id,
        judgement,
        result,
        why or due,
        reset.name,
        _networks(found, reset),
        tuple((network.name, network.leases) for network in found.unlisted),
        (*reset.remarks, *_remarks(found, reset, settings)),
    )


def _result(found: Survey, reset: Reset, settings: Config, verdict: Verdict) -> tuple[Result, str]:
    """Say what a run came to; the reason is empty where it is the plan's."""
    failed = [trouble for trouble in (*found.troubles, *reset.troubles) if trouble.again]
    if reset.refusal is not None:
        return Result.REFUSED, reset.refusal
    if failed:
        return Result.FAILED, "; ".join(f"{printable(trouble.network)}: {trouble.why}" for trouble in failed)
    if reset.name is not None:
        return Result.CLEARED, ""
    if not any(network.leases for network in found.networks):
        return Result.NOTHING_DUE, "no leases"
    if verdict is Verdict.CLEAN and settings.clear_when is ClearWhen.UNCLEAN:
        return Result.NOTHING_DUE, "no torn lease, no crowded network"
    return Result.NOTHING_DUE, f"clear_when: {settings.clear_when}"


def _networks(found: Survey, reset: Reset) -> tuple[NetworkOutcome, ...]:
    cleared = dict(reset.cleared)
    return tuple(
        NetworkOutcome(each.name, each.leases, cleared.get(each.name, 0), each.torn) for each in found.networks
    )


def _remarks(found: Survey, reset: Reset, settings: Config) -> tuple[Remark, ...]:
    stuck = [
        Remark(About.LEASE_STUCK, f"Lease {each.address} of {printable(each.network)} stays: {each.why}, ignoring")
        for each in reset.stuck
    ]
    skipped = [
        Remark(About.NETWORK_SKIPPED, f"Network {printable(each.network)} is skipped: {each.why}.")
        for each in (*found.troubles, *reset.troubles)
        if not each.again
    ]
    text = "Network {} holds {} leases, and no setting names it."
    crowded = [
        Remark(About.NETWORK_UNLISTED, text.format(printable(each.name), each.leases))
        for each in found.unlisted
        if is_crowded(each, settings.max_kept_leases)
    ]
    return (*stuck, *skipped, *crowded)
