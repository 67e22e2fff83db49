"""One program at a time: a lock on the state directory, which nobody but its owner can take; what waits how long."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Final, NoReturn

from ..core.errors import BusyError
from . import durable
from .node import STATE_DIRECTORY, Node

# How long we wait at most, in seconds; a test adds it up against the units.
OURS: Final = 3.0  # boot: our own lock
SYSTEMD: Final = 3.0  # boot: D-Bus, and again systemctl
WHO_LIVES: Final = 5.0  # boot, and recover for each network
HOST_LOCAL: Final = 10.0  # recover, for each network: on a full pool its lock is in demand
SHUTDOWN: Final = 10.0  # shutdown in all: D-Bus and systemctl, then our own lock with what is left
OF_SYSTEMD: Final = 2.0  # of it for D-Bus, and again for systemctl


@contextmanager
def only_one(node: Node, *, create: bool = False, patience: float = 0) -> Iterator[None]:
    """Lock the state directory, or wait for our other programs in vain. Raises :class:`BusyError` and ``OSError``."""
    directory = durable.directory(STATE_DIRECTORY, root=node.root, create=create and not node.rehearsal)
    with ExitStack() as stack:
        try:
            state = stack.enter_context(directory)
            hold(state, stack, patience=patience, rehearsal=node.rehearsal)
            if not node.rehearsal:
                with suppress(OSError):  # another user's, or on a broken disk: what is due comes first
                    os.fchmod(state, 0o711)  # who can open it can hold its lock; the files in it stay readable
        except BlockingIOError as error:
            raise BusyError("another cni-lease-reset is at work, try again") from error
        except (FileNotFoundError, PermissionError):
            if not node.rehearsal:  # of nobody but root, who alone may open it: as if the lock were not held
                raise
        yield


def hold(lock: int, stack: ExitStack, *, patience: float, rehearsal: bool) -> None:
    """Lock a file until the stack unwinds, or wait ``patience`` seconds in vain: ``BlockingIOError``."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if rehearsal or not patience > 0:
            raise
        with _within(patience):
            fcntl.flock(lock, fcntl.LOCK_EX)
    stack.callback(_let_go, lock)
    if rehearsal:
        _let_go(lock)


def _let_go(lock: int) -> None:
    with suppress(OSError):  # the close that follows does it, too, but for a child that was forked meanwhile
        fcntl.flock(lock, fcntl.LOCK_UN)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Let a lock be waited for, but not longer: then it is a ``BlockingIOError``, as if nobody had waited."""
    import signal  # a boot that waits for nobody does not pay for it

    def ring(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
