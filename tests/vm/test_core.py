"""The essence of tests 1 to 4 on one machine, for the gate."""

import pytest
from node import NO_WRITEBACK, RKE2, UNIT, WITHOUT_US, Node

SMALL = "lab.subnet=10.52.0.0/28"  # 13 addresses for pods: 8 pods a boot use them up at the second


@pytest.mark.core
def test_00_core(node: Node) -> None:
    with node.scenario("without us: one power cut uses up a /28"):
        node.start(SMALL, NO_WRITEBACK, WITHOUT_US)
        assert len(node.pods().started) == 8
        node.commit_names()
        node.power_cut()
        pods = node.pods()
        assert len(pods.started) == 5
        assert all("no IP addresses available in range set" in error for error in pods.errors), pods.errors
    with node.scenario("with us: it is free again, before RKE2 starts"):
        node.run("sync")
        node.power_cut(SMALL)
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared, verdict.torn) == ("unknown", 13, 13, 8)
        assert len(node.pods().started) == 8
        node.nothing_lost()
        assert node.moment(UNIT, "ActiveEnter") <= node.moment(RKE2, "InactiveExit")
    with node.scenario("systemctl restart of RKE2 and of our unit, under living pods"), node.untouched_leases():
        node.run(f"systemctl restart {RKE2}")
        assert len(node.pods().alive) == 8
        node.run(f"systemctl restart {UNIT}")
        assert node.verdict_again().verdict == "same-boot"
        assert node.marker()["state"] == "running", "a stop is no shutdown"
    with node.scenario("power cut"):
        node.commit_names()
        node.power_cut("lab.pods=3")
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 8, 8)
        assert len(node.pods().started) == 3
        node.nothing_lost()
    with node.scenario("systemctl reboot"):
        node.goes_down("systemctl reboot")
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("clean", 3, 0)
        node.nothing_lost()
