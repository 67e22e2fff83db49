"""Setting leases aside: renamed one by one under host-local's lock, never deleted; and back again.

No fsync here: a move that a power cut undoes is made again, for the marker that the next boot finds does not say clean.
"""

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final, NamedTuple, TypeAlias

from ..core.errors import describe
from ..core.model import Config, Lease, Network, Reset, Ruling, Step, Stuck, Trouble
from . import durable, leases, lock
from .leases import Hold
from .node import Node
from .shelf import Shelf

BUSY: Final = "busy: another process holds host-local's lock"
# A link or a directory in place of a network or of its lock, put there since we looked: the same at every boot.
_NEVER_MENDS: Final = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR)

# Says of the leases that are due, by network, whether they may go now.
Guard: TypeAlias = Callable[[Mapping[str, tuple[Lease, ...]]], Ruling]


def set_aside(steps: tuple[Step, ...], networks: tuple[Network, ...], hold: Hold, guard: Guard, reset: Shelf) -> Reset:
    """Ask the guard, and move what is due of the networks that are held, but for what the guard spares."""
    found = {network.name: network for network in networks}
    troubles = [_trouble(step.network, hold.failed[step.network]) for step in steps if step.network in hold.failed]
    stuck: list[Stuck] = []
    due = {
        name: tuple(lease for each in found[name].files if (lease := leases.parse(*each)).torn or not torn_only)
        for name, _, torn_only in steps
        if name in hold.networks
    }
    ruling = guard(due) if due else Ruling()
    if ruling.refusal is not None:
        return Reset(refusal=ruling.refusal, troubles=tuple(troubles), remarks=ruling.remarks)
    cleared = []
    for name, its in due.items():
        going = [lease.address for lease in its if lease.address not in ruling.spared]
        cleared.append((name, _move(name, hold.networks[name], going, reset, troubles, stuck)))
    return Reset(reset.name, tuple(cleared), tuple(troubles), tuple(stuck), remarks=ruling.remarks + reset.remarks)


def _trouble(network: str, error: OSError) -> Trouble:
    why = BUSY if isinstance(error, BlockingIOError) else describe(error)
    return Trouble(network, why, again=error.errno not in _NEVER_MENDS)


def _move(name: str, network: int, going: list[str], reset: Shelf, troubles: list[Trouble], stuck: list[Stuck]) -> int:
    """Move leases, one rename each, and return how many went."""
    moved = 0
    failed: list[Stuck] = []
    try:
        with ExitStack() as stack:
            folder = reset.folder(name, stack) if going else -1
            for lease in going:
                try:
                    if not reset.node.rehearsal:
                        os.rename(lease, lease, src_dir_fd=network, dst_dir_fd=folder)
                    moved += 1
                except FileNotFoundError:  # somebody removed it, lock or not
                    continue
                except OSError as error:  # one lease's own matter, unless it is wrong with all of two or more
                    if error.errno not in leases.OF_ONE_LEASE or len(going) == len(failed) + 1 > 1:
                        raise
                    failed.append(Stuck(name, lease, error.strerror or str(error)))
    except OSError as error:
        troubles.append(_trouble(name, error))
    stuck += failed
    return moved


class Restored(NamedTuple):
    """What was put back into a network."""

    network: str
    back: int
    left: int  # stayed on the shelf, for their addresses have leases now
    trouble: str | None = None  # why the rest stayed there, too


def restore(reset: int, name: str, node: Node, config: Config) -> Restored:
    """Put one network's leases of an open reset back, never over a lease that exists now."""
    back = left = 0
    try:
        with ExitStack() as stack:
            data = stack.enter_context(durable.directory(config.data_dir, root=node.root, create=True))
            network = stack.enter_context(leases.locked(data, name, create=True, patience=lock.HOST_LOCAL))
            folder = stack.enter_context(durable.opened(reset, name))
            there = set(os.listdir(network))
            for lease in filter(leases.is_address, os.listdir(folder)):  # nothing that somebody else put there
                if lease in there:  # and nobody can add one: the lock is ours
                    left += 1
                else:
                    os.rename(lease, lease, src_dir_fd=folder, dst_dir_fd=network)
                    back += 1
    except OSError as error:
        return Restored(name, back, left, _trouble(name, error).why)
    return Restored(name, back, left)
