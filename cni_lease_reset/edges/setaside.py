"""Setting leases aside: renamed one by one under host-local's lock, never deleted; and back again.

No fsync here: a move that a power cut undoes is made again, for the marker that the next boot finds does not say clean.
"""

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final, NamedTuple, TypeAlias

from ..core.errors import describe
from ..core.findings import Lease, Network, Remark, Reset, Step, Stuck, Trouble
from . import leases
from .leases import Hold
from .shelf import Shelf

BUSY: Final = "busy: another process holds host-local's lock"
# A link or a directory in place of a network or of its lock: the same at every boot.
_NEVER_MENDS: Final = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR)

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
    failed = tuple(trouble(step.network, hold.failed[step.network]) for step in steps if step.network in hold.failed)
    due = {
        name: [lease for lease in found[name] if lease.torn or not torn_only]
        for name, _, torn_only in steps
        if name in hold.networks
    }
    refusal, remarks = guard([lease for its in due.values() for lease in its]) if due else (None, ())
    remarks = (*hold.remarks, *remarks)
    if refusal is not None:
        return Reset(refusal=refusal, troubles=failed, remarks=remarks)
    done = onto_shelf({name: [lease.address for lease in its] for name, its in due.items()}, hold, onto)
    return done._replace(troubles=failed + done.troubles, remarks=remarks + done.remarks)


def onto_shelf(going: Mapping[str, list[str]], hold: Hold, onto: Shelf) -> Reset:
    """Move leases of networks that are held; what fails is their network's own."""
    done: dict[str, Moved] = {}
    for name, its in going.items():
        try:
            with ExitStack() as stack:
                done[name] = move(name, its, hold.networks[name], onto.folder(name, stack)) if its else Moved()
        except OSError as error:
            done[name] = Moved(trouble=why_of(error))
    troubles = tuple(Trouble(name, each.trouble, again=True) for name, each in done.items() if each.trouble is not None)
    stuck = tuple(lease for each in done.values() for lease in each.stuck)
    cleared = tuple((name, each.number) for name, each in done.items())
    return Reset(onto.name, cleared, troubles, stuck, remarks=onto.remarks)


def trouble(name: str, error: OSError) -> Trouble:
    """Say why a network cannot be held, and whether that will mend by itself."""
    return Trouble(name, why_of(error), again=error.errno not in _NEVER_MENDS)


def why_of(error: OSError) -> str:
    """Say why a network was not dealt with."""
    return BUSY if isinstance(error, BlockingIOError) else describe(error)


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
