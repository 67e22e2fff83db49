"""The README's truth table, row by row. Pure."""

import re
from typing import cast

import pytest
from conftest import THIS, TOP
from truth_table import ROWS

from cni_lease_reset.core.model import Marker, Reading
from cni_lease_reset.core.verdict import judge


@pytest.mark.parametrize(("reading", "ran_before", "newest", "verdict", "_row"), ROWS)
def test_each_marker_has_its_verdict(
    reading: Reading, ran_before: bool, newest: tuple[float, str], verdict: str, _row: str
) -> None:
    judgement = judge(reading, THIS, ran_before=ran_before, newest=newest)
    assert judgement.verdict == verdict
    assert judgement.why


def test_the_readmes_table_is_this_one() -> None:
    readme = (TOP / "README.md").read_text()
    rows = re.findall(r"^\| ([a-z][^|`]*) \|[^|]*\| `([a-z-]+)` \|", readme, re.MULTILINE)
    assert rows == list(dict.fromkeys((row.values[4], row.values[3]) for row in ROWS))


def test_what_nobody_knows_is_no_verdict() -> None:
    with pytest.raises(AssertionError):
        judge(cast(Marker, object()), THIS, ran_before=False)
