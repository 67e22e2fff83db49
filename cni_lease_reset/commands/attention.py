"""What somebody should see to, in sentences: what, and what to do. ``status --check`` exits 3 if there is any."""

import os
from collections.abc import Iterator

from ..core.errors import printable
from ..core.model import (
    LEASE_RESET,
    UNIT,
    About,
    BootId,
    ClearWhen,
    Config,
    DamagedMarker,
    Marker,
    Network,
    NoMarker,
    Outcome,
    Reading,
    Result,
    State,
    Survey,
    Verdict,
)
from ..core.plan import is_crowded
from ..edges.node import STATE_DIRECTORY, Node
from ..edges.systemd import Manager
from . import mounts, rivals
from .pools import Pool

CROWDED = 90  # percent of a pool
_LASTING = (About.MARKER_STUCK, About.NO_RUNTIME)  # what boot said of the node, and not of a moment
# What this boot could not do, and what somebody should do for the next one to do it.
_UNDONE = {
    Result.REFUSED: "Reboot when it suits you, or at once: cni-lease-reset recover",
    Result.FAILED: "Mend that. Then reboot when it suits you, or at once: cni-lease-reset recover",
    Result.MISCONFIGURED: "Mend the configuration, try it with: cni-lease-reset config",
}


def pending(boot_id: BootId | None, outcome: Outcome | None, reading: Reading | None, config: Config) -> str | None:
    """Say why the next boot sets leases aside, however this one ends, and what to do; ``None`` if that depends."""
    if config.clear_when is ClearWhen.NEVER:
        return None
    if outcome is not None and outcome.result in _UNDONE:
        if (outcome.judgement.verdict, outcome.result) == (Verdict.CLEAN, Result.MISCONFIGURED):
            return None  # the mark is used up; whether anything was due nobody looked
        undone = f"this boot could not do what was due ({outcome.result}: {printable(outcome.why)})"
        return f"{undone}. {_UNDONE[outcome.result]}"
    match reading:
        case NoMarker():
            unproven = "there is no marker"
        case DamagedMarker(why=why):
            unproven = f"the marker is damaged ({why})"
        case Marker(state=State.RUNNING, boot_id=other) if boot_id is not None and other != boot_id:
            unproven = "the marker is still that of an earlier boot, which had no clean end"
        case _:
            return None
    return f"{unproven}. {_UNDONE[Result.REFUSED]}"


def of_boot(outcome: Outcome | None, due: str | None) -> Iterator[str]:
    """What is wrong with this boot and with the next."""
    if outcome is None:
        yield f"This boot was not judged, see: systemctl status {LEASE_RESET}"
    else:
        yield from (remark.text for remark in outcome.remarks if remark.about in _LASTING)
    if due is not None:
        yield f"A reset is pending for the next boot: {due}"
    elif outcome is not None and outcome.result is Result.MISCONFIGURED:
        yield f"The configuration cannot be used: {printable(outcome.why)}. {_UNDONE[Result.MISCONFIGURED]}"


def of_pools(network: Network, leaked: int | None, room: tuple[Pool, ...], config: Config) -> Iterator[str]:
    """Networks that come to the end of their addresses."""
    name = printable(network.name)
    remedy = "" if not leaked else f", and {leaked} look leaked: cni-lease-reset recover --dry-run"
    for pool in room:
        if pool.leases * 100 >= pool.size * CROWDED:
            family = pool.family.replace("ip", "IP")
            yield f"{name}: {pool.leases} of {pool.size} {family} addresses are taken{remedy}"
    if not room and leaked and is_crowded(network, config.max_kept_leases):
        yield f"{name}: more than {config.max_kept_leases} addresses are taken{remedy}"


def of_networks(node: Node, survey: Survey, config: Config) -> Iterator[str]:
    """Networks that cannot be dealt with, and crowded ones that a mistyped name would leave out."""
    for trouble in survey.troubles:
        name, advice = printable(trouble.network), ". Put a directory there, or take the name out of 'networks'"
        what = "cannot be dealt with" if trouble.again else "is skipped"
        yield f"Network {name} {what}: {trouble.why}{'' if trouble.again else advice}"
    for network in survey.networks:
        lock = f"{config.data_dir}/{network.name}/lock"
        if os.path.islink(node.path(lock)) or os.path.isdir(node.path(lock)):
            advice = f"Remove {printable(lock, quoted=True)}, host-local makes a new one"
            yield f"Network {printable(network.name)} is skipped: its lock is no file. {advice}"
    for network in survey.unlisted:
        if is_crowded(network, config.max_kept_leases):
            problem = f"{printable(network.name)} holds {network.leases} leases, and no setting names it."
            yield f"{problem} If it is one of Kubernetes, add it to 'networks'."


def of_surroundings(node: Node, config: Config, systemd: Manager) -> Iterator[str]:
    """What makes this program blind, or late."""
    for unit in systemd.unordered(config.runtime_units):
        yield f"{unit} may start before us. Order it: systemctl edit {UNIT}, [Unit] Before={unit}"
    lost = mounts.volatile(node, STATE_DIRECTORY)
    if lost is not None:
        yield f"The marker is lost at each boot, for {lost}: every boot then sets all leases aside."
    networks = [f"{config.data_dir}/{name}" for name in config.networks]
    yield from (f"{line}. Let one of the two do it." for line in rivals.find(node, networks))
