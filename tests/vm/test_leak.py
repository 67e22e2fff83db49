"""The leak itself, and the same with us. If the leak stops reproducing, no other test here proves anything."""

import pytest
from node import LEASES, RKE2, STATE, UNIT, WITHOUT_US, Node

FULL = "no IP addresses available in range set"
POOL = "lab.subnet=10.52.0.0/27"  # 29 addresses for pods: 8 pods a boot use them up at the fourth


def test_01_without_us_power_cuts_use_up_the_pool(node: Node) -> None:
    with node.scenario("power cuts without us, until a /27 is used up"):
        node.start(POOL, WITHOUT_US)
        for boot in range(1, 6):
            pods = node.pods()
            if pods.errors:
                assert boot >= 4, f"the pool was full too early: {pods}"
                assert all(FULL in error for error in pods.errors), pods.errors
                return
            assert len(pods.started) == 8
            assert len(node.leases()) == 8 * boot, "a power cut leaked fewer leases than it used to"
            node.commit_names()
            node.power_cut()
        pytest.fail("five boots and no full pool: the leak no longer reproduces")


def test_02_with_us_every_boot_gets_its_pods(node: Node) -> None:
    with node.scenario("first boot after the installation"):
        node.start(POOL)
        assert node.verdict().verdict == "unknown"
        assert len(node.pods().started) == 8
    with node.scenario("six power cuts, a /27, 8 pods each boot"):
        for _ in range(6):
            node.commit_names()
            node.power_cut()
            verdict = node.verdict()
            pods = node.pods()
            assert (verdict.verdict, verdict.found, verdict.cleared, verdict.kept) == ("unclean", 8, 8, 0)
            assert len(pods.started) == 8, pods.errors
            assert len(node.leases(f"{STATE}/set-aside/{verdict.reset}")) == 8
            assert len(node.leases()) == 8
            node.nothing_lost()
            assert node.moment(UNIT, "ActiveEnter") <= node.moment(RKE2, "InactiveExit")
    resets = node.run(f"ls {STATE}/set-aside").split()
    assert len(resets) == 3, f"keep_resets is 3: {resets}"
    assert f"{LEASES}/last_reserved_ip.0" in node.run(f"ls {LEASES}/*")
