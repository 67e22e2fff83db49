"""The shelf: one folder a reset under set-aside/, newest number last; beside its leases why it was made, of what."""

import errno
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from ..core.errors import describe
from ..core.findings import MessageId, Remark
from ..core.model import BootId, Config
from . import durable
from .node import Node, set_aside_directory

_RESET: Final = r"[0-9]+-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}"
_REASON: Final = "reason"
_DATA_DIR: Final = "\ndata_dir="
MOST_REMOVED: Final = 1000  # files a boot: old evidence must not hold it up


class Shelf:
    """The folder of one reset, made when the first lease goes there: nothing to set aside makes no reset."""

    def __init__(self, node: Node, config: Config, boot_id: BootId, reason: str, remarks: list[Remark]) -> None:
        self.node, self.config = node, config
        self._boot_id, self._reason, self._remarks = boot_id, reason, remarks
        self.name: str | None = None

    def folder(self, network: str, stack: ExitStack) -> int | None:
        """Make a network's folder and return its descriptor, closed with the stack; none in a rehearsal."""
        if self.node.rehearsal:
            self.name = "a new reset"  # its number and time are made with it
            return None
        path = set_aside_directory(self.config.data_dir)
        above = stack.enter_context(durable.directory(path, root=self.node.root, create=True))
        if self.name is None:
            self.name = self._begin(above)
        reset = stack.enter_context(durable.opened(above, self.name))
        return stack.enter_context(durable.opened(reset, network, create=True))

    def _begin(self, above: int) -> str:
        """Make the next reset. Its number makes the order, never the clock, which a crash may have set back."""
        number = max(map(_number, resets(above)), default=0) + 1
        name = f"{number}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{self._boot_id[:8]}"
        os.mkdir(name, 0o755, dir_fd=above)
        try:  # to leave the reason for status; on a full disk leases can still be renamed
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(f"{name}/{_REASON}", flags, 0o644, dir_fd=above), "wb") as file:
                file.write(f"{self._reason}{_DATA_DIR}{self.config.data_dir}\n".encode(errors="replace"))
        except OSError as error:
            text = f"The reason of reset {name} cannot be kept: {describe(error)}, ignoring"
            self._remarks.append(Remark(MessageId.IGNORED, text))
        return name


def resets(above: int) -> list[str]:
    """List the resets of an open set-aside directory, oldest first."""
    return sorted((name for name in os.listdir(above) if re.fullmatch(_RESET, name)), key=_number)


def _number(reset: str) -> int:
    return int(reset.partition("-")[0])


def listing(node: Node, config: Config) -> list[str]:
    """List the resets of a configuration's data directory, oldest first; none where nothing was ever set aside."""
    try:
        with durable.directory(set_aside_directory(config.data_dir), root=node.root) as above:
            return resets(above)
    except FileNotFoundError:
        return []


def origin(reset: int) -> tuple[str, str]:
    """Read why an open reset was made, and of which data directory; nothing where a crash or a full disk took it."""
    text = ""
    with suppress(OSError):
        text = durable.read(_REASON, 1 << 16, parent=reset)[0].decode(errors="replace")
    why, _, data_dir = text.partition(_DATA_DIR)
    return why.strip(), data_dir.rstrip("\n")


def prune(node: Node, config: Config) -> tuple[Remark, ...]:
    """Remove the resets of all but the newest ``keep_resets`` boots, oldest first, at most :data:`MOST_REMOVED` files.

    The last act of whoever made one. Those without a lease do not count and go, too: a boot that fails time and again
    must not cost older evidence. What cannot be removed is passed over, and told.
    """
    failed: list[OSError] = []
    if node.rehearsal:
        return ()
    with _noted(failed), durable.directory(set_aside_directory(config.data_dir), root=node.root) as above:
        kept = [each for each in resets(above) if not discard(above, each, failed)]
        budget = MOST_REMOVED
        for reset in outdated(kept, config.keep_resets):
            budget = _remove(above, reset, budget, failed)
    return of_failed(failed)


def of_failed(failed: Sequence[OSError]) -> tuple[Remark, ...]:
    """Tell in one remark what of a shelf could not be removed."""
    if not failed:
        return ()
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return (Remark(MessageId.IGNORED, f"Old resets cannot be removed: {describe(failed[0])}{more}, ignoring"),)


def outdated(found: Sequence[str], boots: int) -> list[str]:
    """List those of some resets, oldest first, that need not stay; a reset's name ends in the id of its boot.

    Of one boot the first and the newest stay: a ``recover`` every hour must not cost what the boot itself set aside.
    """
    by_boot: dict[str, list[str]] = {}  # newest first, boots and their resets
    for reset in reversed(found):
        by_boot.setdefault(reset.rpartition("-")[2], []).append(reset)
    kept = {each for of_boot in list(by_boot.values())[:boots] for each in (*of_boot[:20], of_boot[-1])}
    return [reset for reset in found if reset not in kept]


def _remove(parent: int, name: str, budget: int, failed: list[OSError]) -> int:
    """Remove a directory's files while the budget lasts, and the directory with its last; return what is left of it."""
    with _noted(failed), durable.opened(parent, name) as directory:
        inside = folders(directory)
        for folder in inside:
            budget = _remove(directory, folder, budget, failed)
        for file in sorted({*os.listdir(directory)} - {*inside})[:budget]:
            with _noted(failed):
                os.unlink(file, dir_fd=directory)
                budget -= 1
        os.rmdir(name, dir_fd=parent)
    return budget


@contextmanager
def _noted(failed: list[OSError]) -> Iterator[None]:
    """Go on past what fails; a directory that is not empty is no failure."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            failed.append(error)


def folders(directory: int) -> list[str]:
    """List the directories in an open directory: in a reset, one for each network."""
    with os.scandir(directory) as found:
        return sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))


def discard(above: int, reset: str, failed: list[OSError]) -> bool:
    """Remove a reset if no lease is left in it, and return whether that is so; what somebody else put there stays."""
    with _noted(failed), durable.opened(above, reset) as directory:
        for folder in folders(directory):
            with _noted(failed):
                os.rmdir(folder, dir_fd=directory)
        if folders(directory):
            return False
        if os.listdir(directory) == [_REASON]:
            os.unlink(_REASON, dir_fd=directory)
        os.rmdir(reset, dir_fd=above)
    return True  # or nobody can tell: it counts for nothing
