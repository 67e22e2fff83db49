"""Leases and evidence in, what becomes of each on a running node out. Pure."""

from enum import StrEnum
from typing import Final

from ..core.findings import Lease, Living

# kubelet gives a sandbox four minutes to start; until then a pod of a device plugin has neither address nor shim.
YOUNG: Final = 300.0  # seconds
_AHEAD: Final = 3600.0  # of the clock that dated a lease, at most; what is dated later is of no time at all


class Fate(StrEnum):
    """What becomes of a lease on a running node."""

    LEAKED = "leaked"
    OWNER = "living by owner"
    ADDRESS = "living by address"
    NO_PROCESS = "living until reboot, by address in a namespace without a process"
    YOUNG = "younger than five minutes, as far as can be told"
    UNTOUCHABLE = "that cannot be read or moved"


LIVING: Final = (Fate.OWNER, Fate.ADDRESS, Fate.NO_PROCESS)


def sort_out(found: tuple[Lease, ...], living: Living, *, now: float, uptime: float) -> dict[Lease, Fate]:
    """Tell the fate of each lease of one network; times are in seconds.

    A lease lives with another one of its owner: a pod of two families may have lost the address of one.
    """
    owners = living.owners | {lease.owner for lease in found if lease.address in living.addresses}
    return {lease: _fate(lease, living, owners, now if uptime >= YOUNG else lease.written) for lease in found}


def _fate(lease: Lease, living: Living, owners: frozenset[str | None], now: float) -> Fate:
    if lease.address in living.addresses:
        return Fate.NO_PROCESS if living.addresses[lease.address] is None else Fate.ADDRESS
    if lease.owner is None and not lease.torn:
        return Fate.UNTOUCHABLE
    if lease.owner is not None and lease.owner in owners:
        return Fate.OWNER
    return Fate.YOUNG if now - YOUNG < lease.written < now + _AHEAD else Fate.LEAKED
