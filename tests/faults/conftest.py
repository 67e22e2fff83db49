"""How long to try, and the figures of what was tried: printed by every run, written down by the long one."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import pytest

LONG: Final = bool(os.environ.get("FAULT_TEST_LONG"))
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
def each() -> Iterator[Callable[[Callable[[T], None], Iterable[T]], int]]:
    """Try something with each of many, as many at once as there are processors; the first failure is raised."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def run(attempt: Callable[[T], None], many: Iterable[T]) -> int:
            return len(list(pool.map(attempt, many)))

        yield run
        pool.shutdown(cancel_futures=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for what, number in _FIGURES.items():
        terminalreporter.write_line(f"{number:>9,}  {what}")
