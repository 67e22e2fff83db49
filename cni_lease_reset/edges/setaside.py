"""Setting leases aside: renamed one by one under host-local's lock, never deleted; and back again.

No fsync here: a move that a power cut undoes is made again, for the marker that the next boot finds does not say clean.
"""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, NamedTuple

from ..core.errors import BusyError, RefusedError, describe, printable
from ..core.model import BootId, Config, Remark, Reset, Step, Trouble
from . import durable, leases, shelf
from .node import Node, set_aside_directory

# A link or a directory in place of a network or of its lock, put there since we looked: the same at every boot.
_NEVER_MENDS: Final = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR)


def set_aside(
    steps: tuple[Step, ...],
    node: Node,
    config: Config,
    boot_id: BootId,
    guard: Callable[[], tuple[str | None, tuple[Remark, ...]]],
    *,
    all_or_nothing: bool = False,
) -> Reset:
    """Lock the networks, ask the guard, and move what is due.

    A network that cannot be locked does not stop the others, unless ``all_or_nothing``.
    Raises ``OSError`` where the data directory cannot be opened.
    """
    troubles: list[Trouble] = []
    with ExitStack() as stack:
        data = stack.enter_context(durable.directory(config.data_dir, root=node.root))
        held = [(step, network) for step in steps if (network := _lock(data, step, stack, troubles, node)) is not None]
        if troubles and all_or_nothing:
            return Reset(troubles=tuple(troubles))
        refusal, remarks = guard() if held else (None, ())  # under the locks: no ADD can slip in between
        if refusal is not None:
            return Reset(refusal=refusal, troubles=tuple(troubles), remarks=remarks)
        reset = shelf.Shelf(node, config, boot_id, "; ".join(dict.fromkeys(step.why for step in steps)))
        cleared = tuple((step.network, _move(network, step, reset, troubles)) for step, network in held)
    return Reset(reset.name, cleared, tuple(troubles), remarks=(*remarks, *reset.remarks))


def _lock(data: int, step: Step, stack: ExitStack, troubles: list[Trouble], node: Node) -> int | None:
    """Take host-local's lock of a network until the stack closes; ``None`` and a trouble where that cannot be."""
    try:
        return stack.enter_context(leases.locked(data, step.network, rehearsal=node.rehearsal))
    except BlockingIOError:
        troubles.append(Trouble(step.network, "busy: another process holds host-local's lock", again=True))
    except OSError as error:
        mends = error.errno not in _NEVER_MENDS
        troubles.append(Trouble(step.network, describe(error), again=mends))
    return None


def _move(network: int, step: Step, reset: shelf.Shelf, troubles: list[Trouble]) -> int:
    """Move the leases that a step means, one rename each, and return how many went."""
    moved = 0
    try:
        with ExitStack() as stack:
            due = leases.names(network, step)
            folder = reset.folder(step.network, stack) if due else -1
            for lease in due:
                reset.move(lease, network, folder)
                moved += 1
    except OSError as error:
        troubles.append(Trouble(step.network, describe(error), again=True))
    return moved


class Restored(NamedTuple):
    """What was put back into a network, and what was left where it was, for its address has a lease now."""

    network: str
    back: int
    left: int


def restore(reset: str, node: Node, config: Config, guard: Callable[[], str | None]) -> tuple[Restored, ...]:
    """Put the leases of a reset back, never over a lease that exists now; a reset that is empty then is removed.

    Raises :class:`BusyError` and :class:`RefusedError` with nothing moved, and ``OSError``.
    """
    with ExitStack() as stack:
        above = stack.enter_context(durable.directory(set_aside_directory(config.data_dir), root=node.root))
        folder = durable.subdirectory(above, reset)
        stack.callback(os.close, folder)
        data = stack.enter_context(durable.directory(config.data_dir, root=node.root, create=True))
        held = [(name, _lock_for_restore(data, name, stack)) for name in shelf.folders(folder)]
        refusal = guard()  # under the locks, as for a reset
        if refusal is not None:
            raise RefusedError(f"nothing was put back: {refusal}")
        done = tuple(_put_back(folder, name, network) for name, network in held)
        if not any(each.left for each in done):
            shelf.discard(above, reset)
    return done


def _lock_for_restore(data: int, name: str, stack: ExitStack) -> int:
    try:
        return stack.enter_context(leases.locked(data, name, create=True))
    except BlockingIOError as error:
        busy = f"nothing was put back: another process holds host-local's lock of network {printable(name)}"
        raise BusyError(busy) from error


def _put_back(reset: int, name: str, network: int) -> Restored:
    folder = durable.subdirectory(reset, name)
    try:
        there = set(os.listdir(network))
        aside = [name for name in os.listdir(folder) if leases.is_address(name)]  # nothing that somebody else put there
        for lease in aside:
            if lease not in there:  # and nobody can add it: the lock is ours
                os.rename(lease, lease, src_dir_fd=folder, dst_dir_fd=network)
    finally:
        os.close(folder)
    left = len(there.intersection(aside))
    return Restored(name, len(aside) - left, left)
