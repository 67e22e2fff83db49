"""Setting leases aside: renamed one by one under host-local's lock, never deleted; and back again.

No fsync here: a move that a power cut undoes is made again, for the marker that the next boot finds does not say clean.
"""

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final, NamedTuple, TypeAlias

from ..core.errors import describe
from ..core.model import Config, Lease, Reset, Ruling, Step, Stuck, Trouble
from . import durable, leases
from .node import Node
from .shelf import Shelf

BUSY: Final = "busy: another process holds host-local's lock"
PATIENCE: Final = 10.0  # seconds for host-local's lock, where a person waits: on a full pool it is in demand
# A link or a directory in place of a network or of its lock, put there since we looked: the same at every boot.
_NEVER_MENDS: Final = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR)

# Says of the leases that are due, by network, whether they may go now.
Guard: TypeAlias = Callable[[Mapping[str, tuple[Lease, ...]]], Ruling]


class _Held(NamedTuple):
    """A network whose lock is ours, and what is due of it."""

    name: str
    directory: int
    due: tuple[Lease, ...]


def set_aside(steps: tuple[Step, ...], reset: Shelf, guard: Guard, *, patience: float = 0) -> Reset:
    """Lock the networks, ask the guard, and move what is due but for what the guard spares.

    A network that cannot be locked within ``patience`` seconds does not stop the others.
    Raises ``OSError`` where the data directory cannot be opened.
    """
    troubles: list[Trouble] = []
    stuck: list[Stuck] = []
    with ExitStack() as stack:
        data = stack.enter_context(durable.directory(reset.config.data_dir, root=reset.node.root))
        held = []
        for step in steps:
            try:
                held.append(_hold(data, step, reset.node, patience, stack))
            except OSError as error:
                troubles.append(_trouble(step.network, error))
        ruling = guard({each.name: each.due for each in held}) if held else Ruling()  # locked: no ADD slips in between
        if ruling.refusal is not None:
            return Reset(refusal=ruling.refusal, troubles=tuple(troubles), remarks=ruling.remarks)
        cleared = tuple((each.name, _move(each, ruling.spared, reset, troubles, stuck)) for each in held)
    remarks = (*ruling.remarks, *reset.remarks)
    return Reset(reset.name, cleared, tuple(troubles), tuple(stuck), remarks=remarks)


def _hold(data: int, step: Step, node: Node, patience: float, stack: ExitStack) -> _Held:
    """Take host-local's lock of a network until the stack closes, and read what is due."""
    network = leases.locked(data, step.network, patience=patience, rehearse=node.rehearsal)
    directory = stack.enter_context(network)
    return _Held(step.network, directory, leases.read(directory, step.selection))


def _trouble(network: str, error: OSError) -> Trouble:
    why = BUSY if isinstance(error, BlockingIOError) else describe(error)
    return Trouble(network, why, again=error.errno not in _NEVER_MENDS)


def _move(network: _Held, spared: frozenset[str], reset: Shelf, troubles: list[Trouble], stuck: list[Stuck]) -> int:
    """Move leases, one rename each, and return how many went.

    What is wrong with one lease is its own matter, as long as it is not wrong with all of two or more.
    """
    going = [lease.address for lease in network.due if lease.address not in spared]
    moved = 0
    failed: list[Stuck] = []
    try:
        with ExitStack() as stack:
            folder = reset.folder(network.name, stack) if going else -1
            for lease in going:
                try:
                    reset.move(lease, network.directory, folder)
                    moved += 1
                except FileNotFoundError:  # somebody removed it, lock or not
                    continue
                except OSError as error:
                    if error.errno not in leases.OF_ONE_LEASE or len(going) == len(failed) + 1 > 1:
                        raise
                    failed.append(Stuck(network.name, lease, error.strerror or str(error)))
    except OSError as error:
        troubles.append(_trouble(network.name, error))
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
            network = stack.enter_context(leases.locked(data, name, create=True, patience=PATIENCE))
            folder = durable.subdirectory(reset, name)
            stack.callback(os.close, folder)
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
