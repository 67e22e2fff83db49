"""What somebody should see to, in sentences: what, and what to do. ``status --check`` exits 3 if there is any."""

import os
from collections.abc import Iterator

from ..core.errors import printable
from ..core.events import leases
from ..core.findings import MessageId, Network, Outcome, Result, Survey
from ..core.model import LEASE_RESET, UNIT, BootId, ClearWhen, Config, Marker, Reading, State
from ..core.plan import is_crowded
from ..edges.node import STATE_DIRECTORY, Node
from ..edges.systemd import Manager
from . import rivals
from .pools import Pool

CROWDED = 90  # percent of a pool
_START = f"systemctl restart {UNIT}"
_LASTING = (MessageId.MARKER_STUCK, MessageId.NO_RUNTIME)  # what boot said of the node, and not of a moment
# What this boot could not do, and what somebody should do for the next one to do it.
_UNDONE = {
    Result.REFUSED: "Reboot when it suits you, or at once: cni-lease-reset recover",
    Result.FAILED: "Mend that. Then reboot when it suits you, or at once: cni-lease-reset recover",
    Result.MISCONFIGURED: "Mend the configuration, try it with: cni-lease-reset config",
}


def pending(this: BootId | None, outcome: Outcome | None, reading: Reading | None, config: Config | None) -> str | None:
    """Say why the next boot sets leases aside, however ``this`` one ends, and what to do; ``None`` if that depends.

    No ``config``: it cannot be read.
    """
    if reading is None or this is None or (config is not None and config.clear_when is ClearWhen.NEVER):
        return None
    if isinstance(reading, Marker) and (reading.boot_id == this or reading.state is State.CLEAN):
        return None
    if outcome is None:
        return f"this boot was not judged. {_UNDONE[Result.REFUSED]}"
    if outcome.done:
        return f"nothing marks the end of this boot. To have it marked (pods do not notice): {_START}"
    undone = f"this boot could not do what was due ({outcome.result}: {printable(outcome.why)})"
    if outcome.result is Result.MISCONFIGURED and config is not None:
        return f"{undone}, which is mended since. {_UNDONE[Result.REFUSED]}"
    return f"{undone}. {_UNDONE[outcome.result]}"


def of_boot(outcome: Outcome | None, due: str | None) -> Iterator[str]:
    """What is wrong with this boot and with the next."""
    if outcome is None:
        yield f"This boot was not judged. Whether its unit is masked or disabled: systemctl status {LEASE_RESET}"
    else:
        yield from (remark.text for remark in outcome.remarks if remark.about in _LASTING)
    if due is not None:
        yield f"A reset is pending for the next boot: {due}"


def of_mark(boot_id: BootId | None, reading: Reading | None, systemd: Manager) -> Iterator[str]:
    """A mark of this boot that says clean while it goes on: a cancelled shutdown, or a soft-reboot."""
    clean = isinstance(reading, Marker) and reading.state is State.CLEAN and reading.boot_id == boot_id
    if clean and systemd.going_down()[0] is False:
        yield f"This boot is marked as clean, and a crash of it may pass for clean. To mark it as running: {_START}"


def of_networks(node: Node, config: Config, survey: Survey) -> Iterator[str]:
    """Networks that cannot be dealt with."""
    for name, why, again in survey.troubles:
        remedy = "Put a directory there, or take the name out of 'networks'"
        told = f"cannot be dealt with: {why}" if again else f"is skipped: {why}. {remedy}"
        yield f"Network {printable(name)} {told}"
    for network in survey.networks:
        path = f"{config.data_dir}/{network.name}/lock"
        lock = node.path(path)
        if os.path.islink(lock) or (os.path.exists(lock) and not os.path.isfile(lock)):
            remedy = f"Remove {printable(path, quoted=True)}, host-local makes a new one"
            yield f"Network {printable(network.name)} is skipped: its lock is no file. {remedy}"


def of_pools(network: Network, leaked: int | None, room: tuple[Pool, ...], config: Config) -> Iterator[str]:
    """Networks that come to the end of their addresses."""
    remedy = "" if not leaked else f", and {leaked} look leaked: cni-lease-reset recover --dry-run"
    yield from (f"{each}{remedy}" for each in _full(network, room))
    if not room and leaked and is_crowded(network, config.max_kept_leases):
        yield f"{printable(network.name)}: more than {config.max_kept_leases} addresses are taken{remedy}"


def _full(network: Network, room: tuple[Pool, ...]) -> list[str]:
    return [
        f"{printable(network.name)}: {taken} of {size} {family.replace('ip', 'IP')} addresses are taken ({range_set})"
        for family, size, taken, range_set in room
        if taken * 100 >= size * CROWDED
    ]


def of_unlisted(network: Network, room: tuple[Pool, ...], config: Config, *, only: bool) -> Iterator[str]:
    """Networks that a mistyped name would leave out: full or crowded ones, and any where nothing else is there."""
    told = only or is_crowded(network, config.max_kept_leases)
    held = [f"{printable(network.name)} holds {leases(len(network.found))}"] if told else []
    for each in _full(network, room) or held:
        yield f"{each}, and no setting names it. If it is one of Kubernetes, add it to 'networks'."


def of_surroundings(node: Node, config: Config) -> Iterator[str]:
    """What makes this program blind."""
    lost = rivals.volatile(node, STATE_DIRECTORY)
    if lost is not None:
        yield f"The marker is lost at each boot, for {lost}: every boot then sets all leases aside."
    networks = [f"{config.data_dir}/{name}" for name in config.networks]
    yield from (f"{line}. Let one of the two do it." for line in rivals.find(node, networks))
