"""The README's truth table, row by row, and what is due after it. Pure."""

import re

import pytest
from conftest import OTHER, THIS, TOP

from cni_lease_reset.core.model import (
    ClearWhen,
    Config,
    DamagedMarker,
    Marker,
    Network,
    NoMarker,
    Reading,
    Selection,
    State,
    Verdict,
)
from cni_lease_reset.core.plan import draw_up
from cni_lease_reset.core.verdict import judge

SINCE = "2026-11-23T06:12:01Z"
ROWS = [
    pytest.param(NoMarker(), False, "unknown", "none", id="fresh install"),
    pytest.param(DamagedMarker("it is empty"), False, "damaged", "unreadable", id="marker emptied by a power cut"),
    pytest.param(Marker(State.RUNNING, OTHER, SINCE), False, "unclean", "running", id="power cut"),
    pytest.param(Marker(State.CLEAN, OTHER, SINCE), False, "clean", "clean", id="systemctl reboot"),
    pytest.param(Marker(State.RUNNING, THIS, SINCE), False, "same-boot", "any", id="service restarted by hand"),
    pytest.param(Marker(State.CLEAN, THIS, SINCE), True, "same-boot", "any", id="soft-reboot"),
    pytest.param(Marker(State.RUNNING, OTHER, SINCE), True, "same-boot", "any", id="started again after it failed"),
    pytest.param(Marker(State.CLEAN, OTHER, SINCE), True, "same-boot", "any", id="clean, and started again"),
    pytest.param(NoMarker(), True, "same-boot", "any", id="no marker, and started again"),
    pytest.param(DamagedMarker("x"), True, "same-boot", "any", id="damaged, and started again"),
]
HEALTHY = Network("healthy", inet=110)
TORN = Network("torn", inet=112, torn_inet=2)
CROWDED = Network("crowded", inet=111)
CROWDED6 = Network("crowded6", inet6=111)
EMPTY = Network("empty")
ALL = (HEALTHY, TORN, CROWDED, CROWDED6, EMPTY)
EVERY = {"healthy": Selection.ALL, "torn": Selection.ALL, "crowded": Selection.ALL, "crowded6": Selection.ALL}


@pytest.mark.parametrize(("reading", "ran_before", "verdict", "_row"), ROWS)
def test_each_marker_has_its_verdict(reading: Reading, ran_before: bool, verdict: str, _row: str) -> None:
    judgement = judge(reading, THIS, ran_before=ran_before)
    assert judgement.verdict == verdict
    assert judgement.why


@pytest.mark.parametrize("clear_when", ClearWhen)
@pytest.mark.parametrize(("reading", "ran_before", "verdict", "_row"), ROWS)
def test_each_verdict_has_its_plan(
    reading: Reading, ran_before: bool, verdict: str, _row: str, clear_when: ClearWhen
) -> None:
    judged = judge(reading, THIS, ran_before=ran_before).verdict
    plan = draw_up(judged, ALL, Config(clear_when=clear_when))
    due = {step.network: step.selection for step in plan}
    if verdict == "same-boot" or clear_when == "never":
        assert due == {}
    elif verdict == "clean" and clear_when == "unclean":
        assert due == {"torn": Selection.TORN, "crowded": Selection.ALL, "crowded6": Selection.ALL}
    else:
        assert due == EVERY
    assert all(step.why for step in plan)


def test_without_a_limit_no_network_is_crowded() -> None:
    plan = draw_up(Verdict.CLEAN, ALL, Config(max_kept_leases=None))
    assert [step.network for step in plan] == ["torn"]


def test_the_readmes_table_is_this_one() -> None:
    readme = (TOP / "README.md").read_text()
    rows = re.findall(r"^\| (\S+) \|[^|]*\| `([a-z-]+)` \|", readme, re.MULTILINE)
    assert rows == list(dict.fromkeys((row.values[3], row.values[2]) for row in ROWS))
