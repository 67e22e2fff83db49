"""A question asked in a child of its own: it may hang on a process in D state, and must hold up nobody."""

import marshal
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from ..core.errors import NoAnswerError, printable
from .lock import WHO_LIVES

T = TypeVar("T")


def ask(question: Callable[[], T], *, seconds: float = WHO_LIVES) -> T:
    """Answer a question in a child, within ``seconds``; plain data only (see marshal). Raises ``NoAnswerError``.

    A child that is late is killed, and its end is not waited for: in D state it does not come. It may still hold what
    it inherited, so a caller that holds a lock must unlock it (``LOCK_UN``), not just close it.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        child, reader = _start(question, seconds)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # from here on the caller's alarm and Ctrl-C may end us
            said = _hear(reader, seconds)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            os.close(reader)
            with suppress(ChildProcessError):  # our own parent may have told us to ignore SIGCHLD
                os.waitpid(child, os.WNOHANG)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    answer: T
    fault = "it ended before it had an answer"
    with suppress(EOFError, TypeError, ValueError):  # the child died half-way: what is torn does not load
        answer, fault = marshal.loads(said)
    if fault is None:
        return answer
    raise NoAnswerError(fault)


def _start(question: Callable[[], object], seconds: float) -> tuple[int, int]:
    """Start the child, and return it and where to read. No signal may come: it would run our handlers in the child."""
    pipe: tuple[int, ...] = ()
    try:
        pipe = reader, writer = os.pipe()
        child = os.fork()
    except OSError as error:
        for descriptor in pipe:
            os.close(descriptor)
        raise NoAnswerError(f"no process can be made: {error.strerror}") from error
    if child == 0:
        try:
            _shed(keep=writer)
            signal.setitimer(signal.ITIMER_REAL, seconds + 1)  # where the parent dies, nobody else ends us
            _answer(question, writer)
        finally:
            os._exit(0)  # without running anything of the parent's
    os.close(writer)
    return child, reader


def _shed(*, keep: int) -> None:
    """Restore the default of every signal, and close every descriptor but one: a lock or a terminal is the parent's."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError):  # those that the C library keeps for itself
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor != keep:
            with suppress(OSError):  # the one that listed them
                os.close(descriptor)


def _answer(question: Callable[[], object], writer: int) -> None:
    """Write the answer, or the fault of ours that there was instead of one."""
    try:
        said = marshal.dumps((question(), None))  # type: ignore[arg-type]  # what is not plain is a fault
    except Exception as error:  # noqa: BLE001  only the parent can tell it
        said = marshal.dumps((None, printable(f"{type(error).__name__}: {error}")))
    with open(writer, "wb") as pipe:
        pipe.write(said)


def _hear(reader: int, seconds: float) -> bytes:
    """Read until the child closes its end. Raises ``NoAnswerError`` once the time is up."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    said = b""
    while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
        part = os.read(reader, 1 << 16)
        if not part:
            return said
        said += part
    raise NoAnswerError(f"no answer within {seconds:g} s")
