"""Let each system call on the node fail, one at a time: one clear line, the right status, nothing lost."""

import re
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from .cases import (
    TRIED,
    Before,
    Case,
    it_is_done_or_told,
    nothing_is_lost,
    the_marker_is_believable,
    the_next_boot_mends_it,
)
from .conftest import Figures
from .test_crash_points import undisturbed
from .tracing import Call, Run, failing

ERRORS: Final = ("EIO", "ENOSPC", "EROFS", "EACCES", "EXDEV", "EMFILE", "EINTR")


class Fault(NamedTuple):
    """A call that fails."""

    call: Call
    error: str
    on: bool  # and each later one of its name, as on a disk that stays full

    def __str__(self) -> str:
        return f"{self.error} at {self.call}{' and on' if self.on else ''}"


def faults(calls: tuple[Call, ...], *, long: bool) -> list[Fault]:
    """Each changing call with one error after the other in turn; the long run: each call with each error, twice."""
    if long:
        return [Fault(call, error, on) for call in calls for error in ERRORS for on in (False, True)]
    return [
        Fault(call, error, on=False)
        for call, error in zip((call for call in calls if call.changes and call.done), cycle(ERRORS), strict=False)
    ]


def it_is_told(run: Run, *, said: str) -> None:
    """One line for each thing that went wrong, in words, and a status that says which kind."""
    assert run.status in (0, 74, 75, 78), f"{said}: status {run.status}: {run.stderr}"
    lines = run.stderr.splitlines()
    assert "Traceback" not in run.stderr, f"{said}: {run.stderr}"
    assert lines, f"{said}: nothing was said"
    assert run.status == 0 or "'" in run.stderr, f"{said}: the file is not named: {run.stderr}"
    assert all(re.match(r"cni-lease-reset: \S", line) for line in lines), f"{said}: {run.stderr}"
    assert len(lines) == len(set(lines)) <= 3, f"{said}: {run.stderr}"


@pytest.mark.parametrize("case", TRIED, ids=lambda case: case.name)
def test_a_call_that_fails_is_told_and_costs_nothing(
    case: Case,
    tmp_path: Path,
    long: bool,
    figures: Figures,
    each: Callable[[Callable[[Fault], None], Iterable[Fault]], int],
) -> None:
    def attempt(fault: Fault) -> None:
        name = f"{fault.call.name}-{fault.call.number}-{fault.error}{'-on' if fault.on else ''}"
        tree = case.tree(tmp_path / name)
        before = Before.of(tree)
        run = failing(tree, fault.call, fault.error, *case.arguments, on=fault.on)
        said = f"{case.name}, {fault}"
        assert [hit.place for hit in run.hit[:1]] == [fault.call.place], f"{said}: another call failed: {run.hit}"
        it_is_told(run, said=said)
        nothing_is_lost(before, tree, said=said)
        the_marker_is_believable(case, before, tree, said=said)
        it_is_done_or_told(case, before, tree, run.status, said=f"{said}: {run.stderr}")
        the_next_boot_mends_it(before, tree, said=said)

    figures.add("faults injected", each(attempt, faults(undisturbed(case, tmp_path / "plain").calls, long=long)))
