"""Setting leases aside: renamed one by one under host-local's lock, never deleted.

No fsync here: a move that a power cut undoes is made again, for the marker that the next boot finds does not say clean.
"""

import errno
import os
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from . import durable, leases
from .errors import describe
from .model import BootId, Config, Remark, Reset, Step, Trouble
from .node import Node, set_aside_directory

_RESET: Final = re.compile(r"([0-9]+)-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
# A link or a directory in place of a network or of its lock, put there since we looked: the same at every boot.
_NEVER_MENDS: Final = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR)
MOST_REMOVED: Final = 1000  # files a boot: old evidence must not hold it up


class Shelf:
    """The folder of one reset, made when the first lease goes there: nothing to set aside makes no reset."""

    def __init__(self, node: Node, config: Config, boot_id: BootId) -> None:
        self._node, self._config, self._boot_id = node, config, boot_id
        self.name: str | None = None

    def folder(self, network: str, stack: ExitStack) -> int:
        """Make the folder for a network's leases and return its descriptor, closed with the stack."""
        path = set_aside_directory(self._config.data_dir)
        above = stack.enter_context(durable.directory(path, root=self._node.root, create=True))
        if self.name is None:
            self.name = _new_reset(above, self._boot_id)
        reset = durable.subdirectory(above, self.name)
        stack.callback(os.close, reset)
        folder = durable.subdirectory(reset, network, create=True)
        stack.callback(os.close, folder)
        return folder


def _new_reset(above: int, boot_id: BootId) -> str:
    """Number the next reset. The number makes the order, never the clock, which a crash may have set back."""
    number = max((number_of(name) for name in resets(above)), default=0) + 1
    name = f"{number}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{boot_id[:8]}"
    os.mkdir(name, 0o755, dir_fd=above)
    return name


def resets(above: int) -> list[str]:
    """List the resets of an open set-aside directory, oldest first."""
    return sorted((name for name in os.listdir(above) if _RESET.fullmatch(name)), key=number_of)


def number_of(reset: str) -> int:
    """Return the number that a reset's name begins with."""
    return int(reset.partition("-")[0])


def set_aside(
    steps: tuple[Step, ...],
    node: Node,
    config: Config,
    boot_id: BootId,
    guard: Callable[[], tuple[str | None, tuple[Remark, ...]]],
) -> Reset:
    """Lock the networks, ask the guard, and move what is due. A network that cannot be done does not stop the others.

    Raises ``OSError`` where the data directory cannot be opened.
    """
    troubles: list[Trouble] = []
    with ExitStack() as stack:
        data = stack.enter_context(durable.directory(config.data_dir, root=node.root))
        held = [(step, network) for step in steps if (network := _lock(data, step, stack, troubles)) is not None]
        refusal, remarks = guard() if held else (None, ())  # under the locks: no ADD can slip in between
        if refusal is not None:
            return Reset(refusal=refusal, troubles=tuple(troubles), remarks=remarks)
        shelf = Shelf(node, config, boot_id)
        cleared = tuple((step.network, _move(network, step, shelf, troubles)) for step, network in held)
    return Reset(shelf.name, cleared, tuple(troubles), remarks=remarks)


def _lock(data: int, step: Step, stack: ExitStack, troubles: list[Trouble]) -> int | None:
    """Take host-local's lock of a network until the stack closes; ``None`` and a trouble where that cannot be."""
    try:
        return stack.enter_context(leases.locked(data, step.network))
    except BlockingIOError:
        troubles.append(Trouble(step.network, "busy: another process holds host-local's lock", again=True))
    except OSError as error:
        mends = error.errno not in _NEVER_MENDS
        troubles.append(Trouble(step.network, describe(error), again=mends))
    return None


def _move(network: int, step: Step, shelf: Shelf, troubles: list[Trouble]) -> int:
    """Move the leases that a step means, one rename each, and return how many went."""
    moved = 0
    try:
        with ExitStack() as stack:
            due = leases.names(network, step.selection)
            folder = shelf.folder(step.network, stack) if due else -1
            for lease in due:
                os.rename(lease, lease, src_dir_fd=network, dst_dir_fd=folder)
                moved += 1
    except OSError as error:
        troubles.append(Trouble(step.network, describe(error), again=True))
    return moved


def prune(node: Node, config: Config) -> None:
    """Remove the resets beyond the newest ``keep_resets``, oldest first, at most :data:`MOST_REMOVED` files.

    Raises ``OSError`` at the first thing that cannot be removed.
    """
    budget = MOST_REMOVED
    try:
        with durable.directory(set_aside_directory(config.data_dir), root=node.root) as above:
            for reset in resets(above)[: -config.keep_resets]:
                budget = _remove(above, reset, budget)
    except FileNotFoundError:
        return  # nothing was ever set aside


def _remove(parent: int, name: str, budget: int) -> int:
    """Remove a directory's files while the budget lasts, then the directory; return what is left of the budget."""
    directory = durable.subdirectory(parent, name)
    try:
        with os.scandir(directory) as found:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        for entry, is_directory in entries:
            if budget == 0:
                return 0
            if is_directory:
                budget = _remove(directory, entry, budget)
            else:
                os.unlink(entry, dir_fd=directory)
                budget -= 1
    finally:
        os.close(directory)
    if budget or not entries:
        os.rmdir(name, dir_fd=parent)
    return budget
