"""Kill the real program before and after each system call that changes the file system; then boot."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from . import report
from .cases import TRIED, Before, Case, nothing_is_lost, the_marker_is_believable, the_next_boot_mends_it
from .conftest import Figures
from .tracing import Call, Run, killed, plain


def undisturbed(case: Case, root: Path) -> Run:
    """Record a run of the verb to its end."""
    tree = case.tree(root)
    before = Before.of(tree)
    run = plain(tree, *case.arguments)
    nothing_is_lost(case, before, tree, said="undisturbed")
    return run


def points(calls: tuple[Call, ...], *, long: bool) -> list[Call]:
    """The calls to be killed at: each that changes something, and the one after it.

    Between two of them the disk is the same, so for the short run the one after the last of them is enough; it leaves
    out those that found nothing to change, too.
    """
    changing = [index for index, call in enumerate(calls) if call.changes and (call.done or long)]
    after = {index + 1 for index in (changing if long else changing[-1:])}
    return [calls[index] for index in sorted({*changing, *after})]


@pytest.mark.parametrize("case", TRIED, ids=lambda case: case.name)
def test_a_kill_at_any_call_loses_nothing_and_the_next_boot_goes_on(
    case: Case,
    place: Path,
    long: bool,
    figures: Figures,
    each: Callable[[Callable[[Call], None], Iterable[Call]], int],
) -> None:
    def attempt(call: Call) -> None:
        tree = case.tree(place / f"{call.name}-{call.number}")
        before = Before.of(tree)
        run = killed(tree, call, *case.arguments)
        said = f"{case.name}, killed at {call}"
        assert run.status == -9, f"{said}: it was not killed"
        assert [hit.place for hit in run.hit] == [call.place], f"{said}: killed elsewhere"
        nothing_is_lost(case, before, tree, said=said)
        the_marker_is_believable(case, before, tree, said=said)
        the_next_boot_mends_it(before, tree, said=said)

    number = each(attempt, points(undisturbed(case, place / "plain").calls, long=long))
    assert number >= 3, "this verb changes files, and strace has seen it"
    figures.add(report.KILLED, number)
