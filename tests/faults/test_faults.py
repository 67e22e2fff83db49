"""Let each system call on the node fail, one at a time: one clear line, the right status, nothing lost."""

import re
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from . import report
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
LOOKS: Final = ("openat", "newfstatat", "read", "getdents64", "flock")
LASTING: Final = ("EIO", "ENOSPC", "EROFS")  # what a broken, full or read-only disk goes on saying
LOOKING: Final = ("EIO", "EACCES", "EMFILE")  # for the calls that change nothing


# A path in quotes, the file, a network, or the marker.
NAMED: Final = re.compile(r"'|config\.yaml: |k8s-pod-network: |cbr0: |the marker cannot be ")


class Fault(NamedTuple):
    """A call that fails."""

    call: Call
    error: str
    on: bool  # and each later one of its name, as on a disk that stays full

    def __str__(self) -> str:
        return f"{self.error} at {self.call}{' and on' if self.on else ''}"


def faults(calls: tuple[Call, ...], *, long: bool) -> list[Fault]:
    """Each changing call with one error after the other in turn; the long run: every one with every error."""
    if long:
        changing = [call for call in calls if call.changes]
        looking = [call for call in calls if call.name in LOOKS and not call.changes]
        return [
            *(Fault(call, error, on=False) for call in changing for error in ERRORS),
            *(Fault(call, error, on=True) for call, error in zip(changing, cycle(LASTING), strict=False)),
            *(Fault(call, error, on=False) for call, error in zip(looking, cycle(LOOKING), strict=False)),
        ]
    return [
        Fault(call, error, on=False)
        for call, error in zip((call for call in calls if call.changes and call.done), cycle(ERRORS), strict=False)
    ]


def it_is_told(run: Run, fault: Fault, *, said: str) -> None:
    """One line for each thing that went wrong, in words, and a status that says which kind."""
    mute = fault.on and fault.call.name == "write"  # stderr is written to like any file, so it is broken, too
    most = 5 if fault.on else 3  # the verdict, the reason, the record, the metrics and the old resets
    assert run.status in (0, 74, 75, 78), f"{said}: status {run.status}: {run.stderr}"
    lines = run.stderr.splitlines()
    assert "Traceback" not in run.stderr, f"{said}: {run.stderr}"
    assert lines or mute, f"{said}: nothing was said"
    assert run.status == 0 or mute or NAMED.search(run.stderr), f"{said}: what failed is not named: {run.stderr}"
    assert all(re.match(r"cni-lease-reset: \S", line) for line in lines), f"{said}: {run.stderr}"
    assert len(lines) == len(set(lines)) <= most, f"{said}: {run.stderr}"


@pytest.mark.parametrize("case", TRIED, ids=lambda case: case.name)
def test_a_call_that_fails_is_told_and_costs_nothing(
    case: Case,
    place: Path,
    long: bool,
    figures: Figures,
    each: Callable[[Callable[[Fault], None], Iterable[Fault]], int],
) -> None:
    def attempt(fault: Fault) -> None:
        name = f"{fault.call.name}-{fault.call.number}-{fault.error}{'-on' if fault.on else ''}"
        said = f"{case.name}, {fault}"
        tree = case.tree(place / name)
        before = Before.of(tree)
        run = failing(tree, fault.call, fault.error, *case.arguments, on=fault.on)
        assert [hit.place for hit in run.hit[:1]] == [fault.call.place], f"{said}: another call failed: {run.hit}"
        it_is_told(run, fault, said=said)
        nothing_is_lost(case, before, tree, said=said)
        the_marker_is_believable(case, before, tree, failed=run.stderr, said=said)
        it_is_done_or_told(case, before, tree, run, said=f"{said}: {run.stderr}")
        the_next_boot_mends_it(before, tree, said=said)

    figures.add(report.FAULTS, each(attempt, faults(undisturbed(case, place / "plain").calls, long=long)))
