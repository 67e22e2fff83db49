"""What a terminal shows: colour, bars, 80 columns. Pure, but for the question to the stream."""

import os
import textwrap
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, TextIO

_SPARKS: Final = "▁▂▃▄▅▆▇█"


class Colour(StrEnum):
    """What a colour says."""

    GOOD = "\x1b[32m"
    WARN = "\x1b[33m"
    BAD = "\x1b[1;31m"

    def paint(self, text: str, colours: bool) -> str:
        """Colour a text; pad it first, for the escapes count as characters."""
        return f"{self}{text}\x1b[0m" if colours else text


def colourful(stream: TextIO) -> bool:
    """Whether to colour what goes there: a terminal only, and never with NO_COLOR (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def bar(part: int, whole: int, width: int) -> str:
    """Draw how full something is; anything at all shows, and only what is full looks full."""
    full = min(width, max(part * width // whole, 1 if part else 0))
    return "█" * full + "░" * (width - full)


def sparkline(numbers: Sequence[int]) -> str:
    """Draw numbers as a line of bars between zero and the highest."""
    most = max(*numbers, 1)
    return "".join(_SPARKS[number * (len(_SPARKS) - 1) // most] for number in numbers)


def wrapped(text: str, *, indent: int) -> list[str]:
    """Break a text into lines of 80 columns, but no word of it; the lines after the first are indented."""
    return textwrap.wrap(text, 80, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def local(seconds: float, *, iso: bool = False) -> str:
    """Write a time in the local zone with its offset, ``2026-11-23 07:12:01 +0100``."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S%z" if iso else "%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "?"  # no calendar goes that far
