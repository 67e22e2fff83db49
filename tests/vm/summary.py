"""The table of a run, one row a scenario, and the figures measured; and the page with the tables of all suites.

A run prints its own table. What passed is kept by suite and test in ``results/``, and the page is written from that: a run
of some tests replaces their rows and no others, and each row tells its commit.
"""

import json
import os
import platform
import re
from pathlib import Path
from typing import Final, NamedTuple, TypedDict

from verdicts import Verdict

RESULTS: Final = "tests/vm/results"
SUITES: Final = ("trixie", "forky", "bookworm")


class Result(TypedDict):
    """What the last run of a test that passed has shown."""

    commit: str
    minutes: float
    rows: list[str]  # as the table has them
    figures: list[str]


class Suite(TypedDict):
    """The results of a suite, by test."""

    machine: str  # of the last run
    tests: dict[str, Result]


class Row(NamedTuple):
    """One scenario: what was tried, how the boots were judged, what became of the leases."""

    scenario: str
    boots: int
    verdicts: tuple[Verdict, ...]
    result: str
    figures: tuple[str, ...] = ()

    def as_json(self) -> str:
        """The row as one worker tells it to another process."""
        return json.dumps(self)

    def cells(self) -> str:
        """The row as the table has it."""
        found, aside, kept = (
            str(sum(getattr(each, name) for each in self.verdicts)) for name in ("found", "cleared", "kept")
        )
        words = ", ".join(_counted([each.verdict for each in self.verdicts])) or "none"
        return " | ".join((self.scenario, str(self.boots), words, found, aside, kept, self.result))


def from_json(text: str) -> Row:
    """Read a row that a worker wrote."""
    scenario, boots, seen, result, figures = json.loads(text)
    return Row(scenario, boots, tuple(Verdict(*each) for each in seen), result, tuple(figures))


def _counted(words: list[str]) -> list[str]:
    """Fold neighbours: ``unclean x6``."""
    folded: list[tuple[str, int]] = []
    for word in words:
        if folded and folded[-1][0] == word:
            folded[-1] = (word, folded[-1][1] + 1)
        else:
            folded.append((word, 1))
    return [word if number == 1 else f"{word} x{number}" for word, number in folded]


def result(rows: list[Row], *, commit: str, seconds: float) -> Result:
    """What is kept of a test."""
    figures = [f"{row.scenario}: {figure}" for row in rows for figure in row.figures]
    return Result(commit=commit, minutes=round(seconds / 60, 1), rows=[row.cells() for row in rows], figures=figures)


_HEAD: Final = "scenario | boots | verdicts | found | set aside | kept | result"


def _table(head: str, rows: list[str], figures: list[str]) -> str:
    lines = [head, re.sub(r"[^|]+", " --- ", head).strip(), *rows]
    table = "".join(f"| {cells} |\n" for cells in lines)
    told = "".join(f"- {figure}\n" for figure in figures)
    return f"{table}\nMeasured, in the guests' time:\n\n{told}" if told else table


def as_markdown(rows: list[Row]) -> str:
    """Write the table of one run."""
    figures = [f"{row.scenario}: {figure}" for row in rows for figure in row.figures]
    return _table(_HEAD, [row.cells() for row in rows], figures)


def keep(checkout: Path, suite: str, passed: dict[str, Result], *, versions: str) -> None:
    """Put what passed in the place of what the same tests showed before, and write the page of all suites."""
    results, here = checkout / RESULTS, Path(__file__).parent
    there = {name for file in here.glob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)}
    before = _read(results / f"{suite}.json")["tests"] | passed
    tests = {test: before[test] for test in sorted(before) if test.partition("[")[0] in there}
    machine = f"{versions}; {os.cpu_count()} {platform.machine()} cores without KVM"
    results.mkdir(exist_ok=True)
    text = json.dumps(Suite(machine=machine, tests=tests), indent=1)
    (results / f"{suite}.json").write_text(f"{text}\n")
    sections = [_section(each, _read(results / f"{each}.json")) for each in SUITES]
    (checkout / "docs/VM-RESULTS.md").write_text("\n".join([_PAGE, *filter(None, sections)]))


_PAGE: Final = """\
# Power cuts: the last runs

This page is for whoever wants to see the leak, and what becomes of it, on whole machines that lose their power. It is
written by `make vm-test` (`SUITE=bookworm|trixie|forky`): a table a suite, with what each test showed when it last passed, and
the commit on which it did. What is not in a table has not been run on that suite since results are kept.
"""


def _read(path: Path) -> Suite:
    if not path.exists():
        return Suite(machine="", tests={})
    read: Suite = json.loads(path.read_text())
    return read


def _section(suite: str, results: Suite) -> str:
    tests = results["tests"].values()
    if not tests:
        return ""
    rows = [f"{cells} | {each['commit']}" for each in tests for cells in each["rows"]]
    minutes = sum(each["minutes"] for each in tests)
    about = f"{results['machine']}. {len(rows)} scenarios, {minutes:.0f} minutes one after another."
    table = _table(f"{_HEAD} | commit", rows, [figure for each in tests for figure in each["figures"]])
    return f"## {suite}\n\n{about}\n\n{table}"
