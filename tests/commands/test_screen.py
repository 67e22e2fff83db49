"""What is drawn, and when in colour."""

import io

import pytest

from cni_lease_reset.commands import screen
from cni_lease_reset.commands.screen import Colour


class Terminal(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO())

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
    assert screen.colourful(Terminal()) is colours
    assert screen.colourful(io.StringIO()) is False


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
    assert screen.bar(part, whole, 4) == bar


def test_a_sparkline_goes_from_zero_to_the_highest() -> None:
    assert screen.sparkline([0, 1, 7, 14]) == "▁▁▄█"
    assert screen.sparkline([0, 0]) == "▁▁"


def test_paint_is_for_terminals_with_colour() -> None:
    assert Colour.BAD.paint("x", colours=False) == "x"
    assert Colour.GOOD.paint("x", colours=True) == "\x1b[32mx\x1b[0m"


def test_a_time_beyond_the_calendar_is_a_question_mark() -> None:
    assert screen.local(1e18) == "?"
