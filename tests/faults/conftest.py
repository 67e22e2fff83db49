"""How long to try, and the figures of what was tried: printed by every run, written down by the long one."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import format_exception
from typing import Final, TypeVar

import pytest

from . import report

LONG: Final = bool(os.environ.get("FAULT_TEST_LONG"))
BEGAN: Final = time.monotonic()
_FIGURES: Final[dict[str, int]] = {}
T = TypeVar("T")


class Figures:
    """Counts by what was counted, over all tests."""

    def add(self, what: str, number: int = 1) -> None:
        """Count; called by the threads of one test after the other."""
        _FIGURES[what] = _FIGURES.get(what, 0) + number


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
def long() -> bool:
    """Whether this is the long run, `make fault-test`."""
    return LONG


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory, with a short name: the path of a containerd's socket must fit into 107 bytes."""
    with TemporaryDirectory(prefix="f", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture
def each() -> Iterator[Callable[[Callable[[T], None], Iterable[T]], int]]:
    """Try something with each of many, as many at once as there are processors, and tell of all that failed."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def run(attempt: Callable[[T], None], many: Iterable[T]) -> int:
            tried = [pool.submit(attempt, one) for one in many]
            failed = [
                "".join(format_exception(error, limit=-1)) for error in (one.exception() for one in tried) if error
            ]
            assert not failed, f"{len(failed)} of {len(tried)} failed:\n\n" + "\n".join(failed)
            return len(tried)

        yield run


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if LONG and exitstatus == 0 and not session.config.option.keyword and len(session.config.args) == 1:
        report.write(_FIGURES, time.monotonic() - BEGAN)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for what, number in _FIGURES.items():
        terminalreporter.write_line(f"{number:>9,}  {what}")
