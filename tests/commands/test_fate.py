"""Whose a lease is on a running node, and how young is too young: a table."""

import pytest

from cni_lease_reset.commands.fate import Fate, sort_out
from cni_lease_reset.core.findings import Lease, Living

NOW = 1_795_200_000.0
UP = 86400.0
OLD = NOW - 3600
POD, GONE = "a" * 64, "b" * 64

LIVES = Living(owners=frozenset({POD}), addresses={"10.52.0.2": 4711, "10.52.0.3": None})


@pytest.mark.parametrize(
    ("lease", "fate"),
    [
        pytest.param(Lease("10.52.0.9", POD, torn=False, written=OLD), Fate.OWNER, id="its id was found"),
        pytest.param(Lease("10.52.0.2", GONE, torn=False, written=OLD), Fate.ADDRESS, id="its address is set"),
        pytest.param(Lease("10.52.0.2", POD, torn=False, written=OLD), Fate.ADDRESS, id="both"),
        pytest.param(Lease("10.52.0.3", GONE, torn=False, written=OLD), Fate.NO_PROCESS, id="in an empty namespace"),
        pytest.param(Lease("10.52.0.2", None, torn=True, written=OLD), Fate.ADDRESS, id="torn, and its address is set"),
        pytest.param(Lease("10.52.0.9", None, torn=True, written=OLD), Fate.LEAKED, id="torn"),
        pytest.param(Lease("10.52.0.9", None, torn=False, written=OLD), Fate.UNTOUCHABLE, id="unreadable"),
        pytest.param(Lease("10.52.0.2", None, torn=False, written=OLD), Fate.ADDRESS, id="unreadable, address is set"),
        pytest.param(Lease("10.52.0.9", GONE, torn=False, written=OLD), Fate.LEAKED, id="nobody says that it lives"),
        pytest.param(Lease("10.52.0.9", "", torn=False, written=OLD), Fate.LEAKED, id="of nobody"),
    ],
)
def test_whose_a_lease_is(lease: Lease, fate: Fate) -> None:
    assert sort_out((lease,), LIVES, now=NOW, uptime=UP) == {lease: fate}


@pytest.mark.parametrize(
    ("written", "uptime", "young"),
    [
        pytest.param(NOW, UP, True, id="this moment"),
        pytest.param(NOW - 299, UP, True, id="almost five minutes ago"),
        pytest.param(NOW - 300, UP, False, id="five minutes ago"),
        pytest.param(NOW + 1, UP, True, id="a second ahead"),
        pytest.param(NOW + 3599, UP, True, id="almost an hour ahead"),
        pytest.param(NOW + 3600, UP, False, id="an hour ahead: of no time at all"),
        pytest.param(NOW + 1e9, UP, False, id="in thirty years"),
        pytest.param(0.0, UP, False, id="1970"),
        pytest.param(NOW - 1e6, 299.9, True, id="old, and the machine is up for less than five minutes"),
        pytest.param(NOW + 1e9, 0.0, True, id="of no time, and it has just started"),
        pytest.param(NOW - 1e6, 300.0, False, id="old, and it is up for five minutes"),
    ],
)
@pytest.mark.parametrize("owner", [GONE, None], ids=["owned", "torn"])
def test_how_young_is_too_young(written: float, uptime: float, young: bool, owner: str | None) -> None:
    lease = Lease("10.52.0.9", owner, owner is None, written)
    [fate] = sort_out((lease,), LIVES, now=NOW, uptime=uptime).values()
    assert fate is (Fate.YOUNG if young else Fate.LEAKED)


def test_nobody_who_lives_is_called_young() -> None:
    lease = Lease("10.52.0.9", POD, torn=False, written=NOW)
    assert sort_out((lease,), LIVES, now=NOW, uptime=0.0) == {lease: Fate.OWNER}


def test_a_lease_lives_with_another_one_of_its_owner() -> None:
    """A dual-stack pod whose IPv6 was switched off has but one of its addresses."""
    inet, inet6, other = (
        Lease(each, GONE, torn=False, written=OLD) for each in ("10.52.0.2", "fd00:52::2", "fd00:52::3")
    )
    other = other._replace(owner="c" * 64)
    found = sort_out((inet, inet6, other), LIVES, now=NOW, uptime=UP)
    assert found == {inet: Fate.ADDRESS, inet6: Fate.OWNER, other: Fate.LEAKED}


def test_what_is_torn_lives_with_nobody() -> None:
    """It has no owner: another torn one whose address is set says nothing of it."""
    set_somewhere, torn = (Lease(each, None, torn=True, written=OLD) for each in ("10.52.0.2", "10.52.0.9"))
    assert sort_out((set_somewhere, torn), LIVES, now=NOW, uptime=UP)[torn] is Fate.LEAKED
