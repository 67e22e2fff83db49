"""What a terminal can show: colour, glyphs beyond ASCII, 80 columns. Pure, but for the question to the stream."""

import os
import textwrap
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple, TextIO

_SPARKS: Final = "▁▂▃▄▅▆▇█"
_RESET: Final = "\x1b[0m"


class Colour(StrEnum):
    """What a colour says."""

    GOOD = "\x1b[32m"
    WARN = "\x1b[33m"
    BAD = "\x1b[1;31m"


class Screen(NamedTuple):
    """How to write for people; the default is plain text."""

    colours: bool = False
    glyphs: bool = True

    def paint(self, text: str, colour: Colour) -> str:
        """Colour a text; pad it first, for the escapes count as characters."""
        return f"{colour}{text}{_RESET}" if self.colours else text

    def bar(self, part: int, whole: int, width: int) -> str:
        """Draw how full something is; anything at all shows, and only what is full looks full."""
        full = min(width, part * width // whole)
        full = max(full, 1) if part else 0
        return ("█" * full + "░" * (width - full)) if self.glyphs else ("#" * full + "." * (width - full))

    def sparkline(self, numbers: Sequence[int]) -> str:
        """Draw numbers as a line of bars between zero and the highest; where there are no glyphs, write them."""
        if not self.glyphs:
            return " ".join(map(str, numbers))
        most = max(max(numbers, default=0), 1)
        return "".join(_SPARKS[number * (len(_SPARKS) - 1) // most] for number in numbers)


def of(stream: TextIO) -> Screen:
    """Look at a stream: colour on a terminal only, and never with NO_COLOR (no-color.org)."""
    colours = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    encoding = stream.encoding or "ascii"
    return Screen(colours, glyphs=_SPARKS.encode(encoding, "replace").decode(encoding) == _SPARKS)


def wrapped(text: str, *, indent: int) -> list[str]:
    """Break a text into lines of 80 columns, but no word of it; the lines after the first are indented."""
    return textwrap.wrap(text, 80, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def local(seconds: float, *, iso: bool = False) -> str:
    """Write a time in the local zone with its offset, ``2026-11-23 07:12:01 +0100``."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S%z" if iso else "%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "?"  # no calendar goes that far
