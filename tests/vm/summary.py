"""The table of a run, one row a scenario, and the figures measured; printed and written as Markdown."""

import json
from pathlib import Path
from typing import NamedTuple

from verdicts import Verdict


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

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        found, aside, kept = (
            str(sum(getattr(each, name) for each in self.verdicts)) for name in ("found", "cleared", "kept")
        )
        words = ", ".join(_counted([each.verdict for each in self.verdicts])) or "none"
        return (self.scenario, str(self.boots), words, found, aside, kept, self.result)


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


_HEAD = ("scenario", "boots", "verdicts", "found", "set aside", "kept", "result")


def as_markdown(rows: list[Row]) -> str:
    """Write the table."""
    lines = [_HEAD, tuple("---" for _ in _HEAD), *(row.cells() for row in rows)]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    figures = "".join(f"- {row.scenario}: {figure}\n" for row in rows for figure in row.figures)
    return f"{table}\nMeasured, in the guests' time:\n\n{figures}" if figures else table


def write(rows: list[Row], path: Path, *, heading: str) -> str:
    """Write the page, and return it."""
    page = f"{heading}\n\n{as_markdown(rows)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    return page
