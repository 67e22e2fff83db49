"""What is due after each verdict. Pure."""

import pytest
from conftest import THIS
from truth_table import ROWS

from cni_lease_reset.core.findings import Lease, Network
from cni_lease_reset.core.model import ClearWhen, Config, Judgement, Reading, Verdict
from cni_lease_reset.core.plan import draw_up
from cni_lease_reset.core.verdict import judge


def network(name: str, prefix: str, number: int, *, torn: int = 0) -> Network:
    """Make a network of so many leases of one family, and so many torn ones beside them."""
    return Network(name, tuple(Lease(f"{prefix}{each}", None, torn=each >= number) for each in range(number + torn)))


HEALTHY = network("healthy", "10.52.0.", 110)
TORN = network("torn", "10.52.0.", 110, torn=2)
CROWDED = network("crowded", "10.52.0.", 111)
CROWDED6 = network("crowded6", "fd00::", 111)
EMPTY = Network("empty")
ALL = (HEALTHY, TORN, CROWDED, CROWDED6, EMPTY)
EVERY = dict.fromkeys(("healthy", "torn", "crowded", "crowded6"), False)


@pytest.mark.parametrize("clear_when", ClearWhen)
@pytest.mark.parametrize(("reading", "ran_before", "newest", "verdict", "_row"), ROWS)
def test_each_verdict_has_its_plan(
    reading: Reading, ran_before: bool, newest: tuple[float, str], verdict: str, _row: str, clear_when: ClearWhen
) -> None:
    judged = judge(reading, THIS, ran_before=ran_before, newest=newest)
    plan = draw_up(judged, ALL, Config(clear_when=clear_when))
    due = {step.network: step.torn_only for step in plan}
    if verdict == "same-boot" or clear_when == "never":
        assert due == {}
    elif verdict == "clean" and clear_when == "unclean":
        assert due == {"torn": True, "crowded": False, "crowded6": False}
    else:
        assert due == EVERY
    assert all(step.why for step in plan)


def test_without_a_limit_no_network_is_crowded() -> None:
    plan = draw_up(Judgement(Verdict.CLEAN, ""), ALL, Config(max_kept_leases=None))
    assert [step.network for step in plan] == ["torn"]
