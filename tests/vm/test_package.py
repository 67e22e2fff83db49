"""The package on a running node: installed, updated, removed, installed again."""

import re

from node import RKE2, STATE, UNIT, Node

STAMP = f"systemctl show -p InvocationID -p ActiveEnterTimestampMonotonic {UNIT}"


def test_13_the_package(node: Node) -> None:
    with node.scenario("installed and enabled, power cut"):
        node.start("lab.pods=3")
        node.pods()
        node.run("sync")
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 3, 3)
        node.nothing_lost()
        node.pods()

    with node.scenario("updated while pods run"), node.untouched_leases():
        before = node.run(STAMP)
        node.run("rpm -U --nodeps /opt/packages/release-2.rpm")
        assert node.run("rpm -q cni-lease-reset").strip().endswith("-2.noarch")
        assert node.run(STAMP) == before, "it was stopped or started"
        assert len(node.verdicts()) == 1
        assert node.marker()["state"] == "running"
        assert node.show(UNIT, "UnitFileState") == "enabled"

    with node.scenario("systemd-analyze verify and security"):
        node.run(f"systemd-analyze verify --man=no {UNIT}")
        told = node.run(f"systemd-analyze security --no-pager {UNIT}")
        exposure = float(re.findall(r"Overall exposure level.*: ([\d.]+)", told)[0])
        node.figure(f"exposure {exposure} of 10")
        assert exposure <= 1.2

    with node.scenario("removed while pods run"), node.untouched_leases():
        node.run("rpm -e --nodeps cni-lease-reset")
        assert node.try_run("command -v cni-lease-reset").status != 0
        assert node.show(UNIT, "LoadState") == "not-found"
        assert node.marker() == {}, "nobody is there to mark the end"
        assert node.run(f"ls {STATE}/set-aside").split() == [verdict.reset]

    with node.scenario("installed again, power cut"):
        with node.untouched_leases():
            node.run("rpm -U --nodeps /opt/packages/release-2.rpm")
            assert node.show(UNIT, "UnitFileState") == "enabled", "the preset says so"
            assert node.show(RKE2, "NRestarts") == "0"
        node.run("sync")
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unknown", 3, 3)
        node.nothing_lost()
        assert len(node.pods().started) == 3
