"""What is drawn."""

import pytest

from cni_lease_reset.commands import screen


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


def test_a_time_beyond_the_calendar_is_a_question_mark() -> None:
    assert screen.local(1e18) == "?"
