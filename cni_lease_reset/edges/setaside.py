"""Setting leases aside: renamed one by one under host-local's lock, never deleted; and back again.

No fsync here: a move that a power cut undoes is made again, for the marker that the next boot finds does not say clean.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple, TypeAlias

from ..core.errors import describe
from ..core.findings import Lease, Network, Remark, Reset, Step, Stuck, Trouble
from . import leases
from .leases import Hold
from .shelf import Shelf

# Says of the leases that are due why none of them may go, and what it survived in asking.
Guard: TypeAlias = Callable[[list[Lease]], tuple[str | None, tuple[Remark, ...]]]


class Moved(NamedTuple):
    """What came of moving a network's leases, here or back."""

    number: int = 0  # of those that went
    stuck: tuple[Stuck, ...] = ()  # stayed, each for a reason of its own
    trouble: str | None = None  # why the rest stayed, too
    taken: int = 0  # of those that stayed because their addresses have leases now
    remarks: tuple[Remark, ...] = ()


def set_aside(steps: tuple[Step, ...], networks: tuple[Network, ...], hold: Hold, guard: Guard, onto: Shelf) -> Reset:
    """Ask the guard, and move what is due of the networks that are held."""
    found = {network.name: network.found for network in networks}
    failed = tuple(hold.failed[step.network] for step in steps if step.network in hold.failed)
    due = {
        name: [lease for lease in found[name] if lease.torn or not torn_only]
        for name, _, torn_only in steps
        if name in hold.networks
    }
    refusal, remarks = guard([lease for its in due.values() for lease in its]) if due else (None, ())
    remarks = (*hold.remarks, *remarks)
    if refusal is not None:
        return Reset(refusal=refusal, troubles=failed, remarks=remarks)
    done = {name: onto_shelf(name, [lease.address for lease in its], hold, onto) for name, its in due.items()}
    troubles = [Trouble(name, each.trouble, again=True) for name, each in done.items() if each.trouble is not None]
    stuck = tuple(lease for each in done.values() for lease in each.stuck)
    cleared = {name: each.number for name, each in done.items()}
    return Reset(onto.name, cleared, (*failed, *troubles), stuck, remarks=(*remarks, *onto.remarks))


def onto_shelf(name: str, going: list[str], hold: Hold, onto: Shelf) -> Moved:
    """Move leases of a network that is held; what fails is the network's own."""
    try:
        with ExitStack() as stack:
            return move(name, going, hold.networks[name], onto.folder(name, stack)) if going else Moved()
    except OSError as error:
        return Moved(trouble=describe(error))


def move(name: str, going: list[str], source: int, target: int | None) -> Moved:
    """Move leases, one rename each; without a target it is a rehearsal.

    What is wrong with one lease is its own matter, unless none of several can be moved.
    """
    moved, stuck = 0, list[Stuck]()
    for lease in going:
        try:
            if target is not None:
                os.rename(lease, lease, src_dir_fd=source, dst_dir_fd=target)
            moved += 1
        except FileNotFoundError:  # somebody removed it, lock or not
            continue
        except OSError as error:
            if error.errno not in leases.OF_ONE_LEASE:
                return Moved(moved, tuple(stuck), describe(error))
            stuck.append(Stuck(name, lease, str(error.strerror)))
    if len(stuck) > 1 and not moved:
        return Moved(trouble=f"all {len(stuck)} leases stay: {stuck[-1].why}")
    return Moved(moved, tuple(stuck))
