"""What a terminal shows: bars, 80 columns, local times. Pure."""

import textwrap
import time


def bar(part: int, whole: int, width: int) -> str:
    """Draw how full something is; anything at all shows, and only what is full looks full."""
    full = min(width, max(part * width // whole, 1 if part else 0))
    return "█" * full + "░" * (width - full)


def wrapped(text: str, *, indent: int) -> list[str]:
    """Break a text into lines of 80 columns, but no word of it; the lines after the first are indented."""
    return textwrap.wrap(text, 80, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def local(seconds: float, *, iso: bool = False) -> str:
    """Write a time in the local zone with its offset, ``2026-11-23 07:12:01 +0100``."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S%z" if iso else "%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "?"  # no calendar goes that far
