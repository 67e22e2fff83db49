"""What is drawn, and when in colour."""

import io

import pytest

from cni_lease_reset.commands import screen
from cni_lease_reset.commands.screen import Colour, Screen


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding)

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_is_for_terminals_that_want_it(
    environment: dict[str, str], colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert screen.of(Terminal()).colours is colours
    assert screen.of(io.StringIO()).colours is False


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert not screen.of(Terminal("latin-1")).glyphs
    assert Screen(glyphs=False).bar(1, 4, 8) == "##......"
    assert Screen(glyphs=False).sparkline([1, 2]) == "1 2"


@pytest.mark.parametrize(
    ("part", "whole", "bar"),
    [
        (0, 253, "░░░░"),
        (1, 253, "█░░░"),
        (252, 253, "███░"),
        (253, 253, "████"),
        (400, 253, "████"),
        (1, 2**64, "█░░░"),
    ],
)
def test_a_bar_is_never_empty_with_something_in_it_nor_full_with_room_left(part: int, whole: int, bar: str) -> None:
    assert Screen().bar(part, whole, 4) == bar


def test_a_sparkline_goes_from_zero_to_the_highest() -> None:
    assert Screen().sparkline([0, 1, 7, 14]) == "▁▁▄█"
    assert Screen().sparkline([0, 0]) == "▁▁"


def test_paint_is_for_screens_with_colour() -> None:
    assert Screen().paint("x", Colour.BAD) == "x"
    assert Screen(colours=True).paint("x", Colour.GOOD) == "\x1b[32mx\x1b[0m"


def test_a_time_beyond_the_calendar_is_a_question_mark() -> None:
    assert screen.local(1e18) == "?"
