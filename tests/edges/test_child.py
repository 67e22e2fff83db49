"""edges/child.py: a question asked in a child of its own, and a child that does not answer."""

import errno
import fcntl
import marshal
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest

from cni_lease_reset.core.errors import NoAnswerError
from cni_lease_reset.edges import child, lock

AT_ONCE = 0.2  # seconds that a test lets a child that will never answer live


def hang(path: Path) -> bytes:
    """Wait for a writer that never comes, as for a process in D state."""
    return path.read_bytes()


@pytest.fixture(autouse=True)
def no_children() -> None:
    _endings()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@contextmanager
def handled(number: signal.Signals, handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def test_an_answer_comes_back_whole() -> None:
    answer = os.urandom(1 << 20)
    assert child.ask(lambda: answer) == answer


def test_an_answer_is_given_by_another_process() -> None:
    assert child.ask(os.getpid) != os.getpid()


def test_an_answer_that_is_no_plain_data_is_none() -> None:
    with pytest.raises(NoAnswerError, match="^ValueError: unmarshallable object"):
        child.ask(object)


def test_a_child_that_fails_has_no_answer() -> None:
    with pytest.raises(NoAnswerError, match="^ZeroDivisionError"):
        child.ask(lambda: b"%d" % (1 // 0))


def test_a_child_that_is_killed_half_way_has_no_answer() -> None:
    def half() -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    started = time.monotonic()
    with pytest.raises(NoAnswerError, match="ended before it had an answer"):
        child.ask(half)
    assert time.monotonic() - started < lock.WHO_LIVES / 2  # nobody waits for the dead


WHOLE = marshal.dumps((("an answer", {"of": frozenset({b"plain"})}, [True, None, 1.5]), None))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"half of an answ", id="anything"),
        *(pytest.param(WHOLE[:end], id=f"{end} bytes") for end in range(len(WHOLE))),
        pytest.param(marshal.dumps(None), id="no pair"),
        pytest.param(marshal.dumps((1, 2, 3)), id="three"),
    ],
)
def test_an_answer_that_is_torn_is_none(said: bytes) -> None:
    def torn() -> bytes:
        os.write(_its_pipe(), said)
        os._exit(0)

    with pytest.raises(NoAnswerError, match="ended before it had an answer"):
        child.ask(torn)


def test_a_child_that_hangs_is_given_up_at_the_deadline_and_killed(fifo: Path) -> None:
    started = time.monotonic()
    with pytest.raises(NoAnswerError, match="no answer within"):
        child.ask(lambda: hang(fifo), seconds=AT_ONCE)
    assert AT_ONCE <= time.monotonic() - started < 5
    assert _endings() <= {signal.SIGKILL}


def test_a_child_that_is_stopped_is_given_up_at_the_deadline_and_killed() -> None:
    def stopped() -> bytes:
        os.kill(os.getpid(), signal.SIGSTOP)
        return b""

    with pytest.raises(NoAnswerError, match="no answer within"):
        child.ask(stopped, seconds=AT_ONCE)
    assert _endings() <= {signal.SIGKILL}


def test_a_child_that_answers_drop_by_drop_is_given_up_all_the_same() -> None:
    def dripping() -> bytes:
        writer = _its_pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.write(writer, bytes(1 << 20))
        while True:
            os.write(writer, bytes(1 << 16))  # there is always something to read

    with pytest.raises(NoAnswerError, match="no answer within"):
        child.ask(dripping, seconds=AT_ONCE)


def test_a_child_that_closes_its_pipe_and_stays_is_not_waited_for(fifo: Path) -> None:
    """As one in D state, which no signal ends; its own alarm ends this one."""

    def staying() -> bytes:
        os.close(_its_pipe())
        return hang(fifo)

    started = time.monotonic()
    with pytest.raises(NoAnswerError, match="ended before"):
        child.ask(staying, seconds=lock.WHO_LIVES)
    assert time.monotonic() - started < lock.WHO_LIVES / 2
    os.close(os.open(fifo, os.O_WRONLY))  # lets it go


def test_a_child_whose_parent_died_ends_by_its_own_alarm(fifo: Path, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    asker = os.fork()
    if asker == 0:

        def orphaned() -> bytes:
            os.kill(os.getppid(), signal.SIGKILL)
            note.write_text(str(os.getpid()))
            return hang(fifo)

        child.ask(orphaned, seconds=AT_ONCE)
    os.waitpid(asker, 0)
    wait_until(lambda: note.exists() and note.read_text() != "" and _is_gone(int(note.read_text())))


def test_a_handler_of_the_parent_does_not_run_in_the_child(fifo: Path, tmp_path: Path) -> None:
    """The alarm of the D-Bus adapter has a handler that raises: in the child it would run the parent's code."""
    ran = tmp_path / "ran"

    def handler(number: int, frame: FrameType | None) -> None:
        ran.touch()
        raise TimeoutError

    def alarmed() -> bytes:
        os.kill(os.getpid(), signal.SIGALRM)
        return b"survived"

    with handled(signal.SIGALRM, handler), pytest.raises(NoAnswerError, match="ended before"):
        child.ask(alarmed)
    assert not ran.exists()


_in_child: list[int] = []  # signals that come as soon as there is a child; such hooks stay for good
_in_parent: list[int] = []
os.register_at_fork(
    after_in_child=lambda: signal.raise_signal(_in_child[0]) if _in_child else None,
    after_in_parent=lambda: signal.raise_signal(_in_parent[0]) if _in_parent else None,
)


def test_an_alarm_of_the_caller_that_came_while_the_child_started_ends_it(fifo: Path) -> None:
    """TimeoutError is an OSError: it must not pass for a fork that failed, with the child left alone."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    _in_parent.append(signal.SIGALRM)
    try:
        with handled(signal.SIGALRM, handler), pytest.raises(TimeoutError):
            child.ask(lambda: hang(fifo))
    finally:
        _in_parent.clear()
    assert _endings() <= {signal.SIGKILL}


def test_a_handler_of_the_parent_does_not_run_in_the_child_before_it_sheds_it_either(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    def handler(number: int, frame: FrameType | None) -> None:
        ran.touch()

    _in_child.append(signal.SIGALRM)
    try:
        with handled(signal.SIGALRM, handler), pytest.raises(NoAnswerError):
            child.ask(lambda: b"survived")
    finally:
        _in_child.clear()
    assert not ran.exists()


def test_a_signal_that_the_parent_blocked_or_ignored_ends_the_child() -> None:
    def alarmed() -> bytes:
        os.kill(os.getpid(), signal.SIGALRM)
        return b"survived"

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        with pytest.raises(NoAnswerError, match="ended before"):
            child.ask(alarmed)
        assert signal.SIGALRM in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # and ours is as it was
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_an_alarm_of_the_caller_ends_the_wait_and_the_child(fifo: Path) -> None:
    """In a process with one thread, as ours is: here another thread may take the signal, and the wait goes on."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    def alarming() -> bytes:
        os.kill(os.getppid(), signal.SIGALRM)
        return hang(fifo)

    def asking() -> bytes:
        with handled(signal.SIGALRM, handler), pytest.raises(TimeoutError):
            child.ask(alarming)
        return repr(sorted(_endings())).encode()

    assert child.ask(asking) in (b"[]", b"[9]")


def test_a_child_holds_nothing_open_but_its_pipe(tmp_path: Path) -> None:
    def opened() -> bytes:
        return " ".join(_open().values()).encode()

    with (tmp_path / "inherited").open("w") as inherited:
        os.set_inheritable(inherited.fileno(), True)
        left = child.ask(opened).decode().split()
    assert len(left) == 1
    assert left[0].startswith("pipe:")


def test_a_lock_that_is_unlocked_is_free_while_a_stopped_child_still_has_it(tmp_path: Path) -> None:
    """As for a child stopped before it closed anything: only LOCK_UN lets go of what it inherited."""
    with (tmp_path / "lock").open("w") as lock, (tmp_path / "lock").open("w") as plugin:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stopped = os.fork()
        if stopped == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        os.waitpid(stopped, os.WUNTRACED)
        fcntl.flock(lock, fcntl.LOCK_UN)
        fcntl.flock(plugin, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(stopped, signal.SIGKILL)
        os.waitpid(stopped, 0)


def test_children_are_left_to_the_kernel_where_our_parent_wanted_it_so() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        for _ in range(50):  # some end before they are waited for
            assert child.ask(lambda: b"answer") == b"answer"
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_no_descriptor_is_left_over() -> None:
    before = _open()
    for _ in range(10):
        child.ask(lambda: b"")
    assert _open() == before


def test_where_no_process_can_be_made_there_is_no_answer() -> None:
    before, limit = _open(), resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, limit[1]))
    os.setresuid(65533, 65533, 0)  # root is above the limit
    try:
        with pytest.raises(NoAnswerError, match=f"no process can be made: {os.strerror(errno.EAGAIN)}"):
            child.ask(lambda: b"")
    finally:
        os.setresuid(0, 0, 0)
        resource.setrlimit(resource.RLIMIT_NPROC, limit)
    assert _open() == before


def test_where_no_pipe_can_be_made_there_is_no_answer() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(NoAnswerError, match=os.strerror(errno.EMFILE)):
            child.ask(lambda: b"")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _open() -> dict[int, str]:
    """What this process has open, by descriptor."""
    found = {}
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(FileNotFoundError):  # the one that listed them
            found[descriptor] = os.readlink(f"/proc/self/fd/{descriptor}")
    return found


def _its_pipe() -> int:
    return next(descriptor for descriptor, file in _open().items() if file.startswith("pipe:"))


def _endings() -> set[int]:
    """Wait for all children that are left, and return by which signals they ended."""
    found = set()
    deadline = time.monotonic() + 10
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process:
                found.add(os.WTERMSIG(status))
            os.sched_yield()
        found.add(signal.SIGSTOP)  # one that nobody ended
    return found - {0}


def _is_gone(process: int) -> bool:
    """Whether a process ended, reaped or not."""
    try:
        return ") Z" in Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_fault_of_ours_in_the_child_is_told() -> None:
    with pytest.raises(NoAnswerError, match="^ZeroDivisionError: "):
        child.ask(lambda: bytes([1 // 0]))
