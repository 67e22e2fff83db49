"""Setting leases aside: renamed one by one under host-local's lock, never deleted; and back again.

No fsync here: a move that a power cut undoes is made again, for the marker that the next boot finds does not say clean.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeAlias

from ..core.errors import describe
from ..core.findings import Lease, Moved, Network, Reset, Step
from . import leases
from .shelf import Shelf

Guard: TypeAlias = Callable[[list[Lease]], str | None]  # says of the leases that are due why none of them may go


def set_aside(
    steps: tuple[Step, ...], networks: tuple[Network, ...], hold: leases.Hold, guard: Guard, onto: Shelf
) -> Reset:
    """Ask the guard, and move what is due of the networks that are held."""
    found = {network.name: network.found for network in networks}
    failed = [hold.failed[step.network] for step in steps if step.network in hold.failed]
    due = {
        name: [lease for lease in found[name] if lease.torn or not torn_only]
        for name, _, torn_only in steps
        if name in hold.networks
    }
    refusal = guard([lease for its in due.values() for lease in its]) if due else None
    if refusal is not None:
        return Reset(None, {}, failed, refusal, hold.remarks)
    moved = {name: onto_shelf(name, [lease.address for lease in its], hold, onto) for name, its in due.items()}
    return Reset(onto.name, moved, failed, None, hold.remarks)


def onto_shelf(name: str, going: list[str], hold: leases.Hold, onto: Shelf) -> Moved:
    """Move leases of a network that is held; what fails is the network's own."""
    try:
        with ExitStack() as stack:
            return move(going, hold.networks[name], onto.folder(name, stack)) if going else Moved()
    except OSError as error:
        return Moved(trouble=describe(error))


def move(going: list[str], source: int, target: int | None) -> Moved:
    """Move leases, one rename each; without a target it is a rehearsal.

    What is wrong with one lease is its own matter, unless none of several can be moved.
    """
    moved, stuck = 0, dict[str, str]()
    for lease in going:
        try:
            if target is not None:
                os.rename(lease, lease, src_dir_fd=source, dst_dir_fd=target)
            moved += 1
        except FileNotFoundError:  # somebody removed it, lock or not
            continue
        except OSError as error:
            if error.errno not in leases.OF_ONE_LEASE:
                return Moved(moved, stuck, describe(error))
            stuck[lease] = str(error.strerror)
    if len(stuck) > 1 and not moved:
        return Moved(trouble=f"all {len(stuck)} leases stay: {[*stuck.values()][-1]}")
    return Moved(moved, stuck)
