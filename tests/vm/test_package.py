"""The package on a running node: installed, updated, removed, installed again."""

import re
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from conftest import NewNode, drive, install
from machine import Image
from node import DEB, PATIENCE, PATIENT, RKE2, RPM, STATE, UNIT, Node

STAMP = f"systemctl show -p InvocationID -p ActiveEnterTimestampMonotonic {UNIT}"


class Kind(NamedTuple):
    """How an operator deals with a package."""

    install: str  # of a release, or the update to it
    version: str
    newer: str  # how the version of release 2 ends
    remove: str


KINDS: Final = {
    "deb": Kind(
        DEB,
        "dpkg-query -W -f '${Version}' cni-lease-reset",
        "+2",
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y remove cni-lease-reset </dev/null",
    ),
    "rpm": Kind(RPM, "rpm -q cni-lease-reset", "-2.noarch", "rpm -e --nodeps cni-lease-reset"),
}


@pytest.fixture(params=KINDS)
def package(request: pytest.FixtureRequest) -> str:
    """The kind of package."""
    return str(request.param)


@pytest.fixture
def packaged_node(package: str, bare: Image, request: pytest.FixtureRequest, new_node: NewNode) -> Node:
    """A node with nothing but the disk of packages of that kind."""
    disk: Path = request.getfixturevalue("packages" if package == "deb" else "rpms")
    return new_node(bare, *drive(disk, "packages"))


def test_13_the_package(package: str, packaged_node: Node) -> None:
    kind, node = KINDS[package], packaged_node
    with node.scenario(f"{package}: installed, and a boot later a power cut"):
        node.start("lab.pods=3")
        node.pods()
        with node.untouched_leases():
            install(node, kind.install)
        assert node.show(UNIT, "UnitFileState") == "enabled"
        assert node.show(UNIT, "ActiveState") == "inactive", "it begins with the next boot"
        node.write(PATIENCE, PATIENT)
        node.goes_down("systemctl reboot")
        first = node.verdict()
        assert (first.verdict, first.found, first.cleared) == ("unknown", 3, 3)
        node.pods()
        node.run("sync")
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 3, 3)
        node.nothing_lost()
        node.pods()

    with node.scenario(f"{package}: updated while pods run"), node.untouched_leases():
        before = node.run(STAMP)
        node.run(kind.install.format(2))
        assert node.run(kind.version).strip().endswith(kind.newer)
        assert node.run(STAMP) == before, "it was stopped or started"
        assert len(node.verdicts()) == 1
        assert node.marker()["state"] == "running"
        assert node.show(UNIT, "UnitFileState") == "enabled"

    with node.scenario(f"{package}: systemd-analyze verify and security"):
        node.run(f"systemd-analyze verify --man=no {UNIT}")
        told = node.run(f"systemd-analyze security --no-pager {UNIT}")
        exposure = float(re.findall(r"Overall exposure level.*: ([\d.]+)", told)[0])
        node.figure(f"exposure {exposure} of 10")
        assert exposure <= 1.2

    with node.scenario(f"{package}: removed while pods run"), node.untouched_leases():
        node.run(kind.remove)
        assert node.try_run("command -v cni-lease-reset").status != 0
        assert node.show(UNIT, "LoadState") == "not-found"
        assert node.marker() == {}, "nobody is there to mark the end"
        assert node.run(f"ls {STATE}/set-aside").split() == [first.reset, verdict.reset]

    with node.scenario(f"{package}: installed again, power cut"):
        with node.untouched_leases():
            node.run(kind.install.format(2))
            assert node.show(UNIT, "UnitFileState") == "enabled"
            assert node.show(RKE2, "NRestarts") == "0"
        node.run("sync")
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unknown", 3, 3)
        node.nothing_lost()
        assert len(node.pods().started) == 3
