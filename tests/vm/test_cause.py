"""The cause: host-local never syncs, a cut empties the newest leases, and no DEL can release an empty lease."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import NewNode, drive
from machine import Image
from node import LEASES, NO_WRITEBACK, WITHOUT_US, Node, Pods

DISK = ("lab.cni_disk=rw", NO_WRITEBACK)
STOP = "lab.stop=after"  # the dead sandboxes get their DEL once the new pods live, as a busy kubelet does it
# 13 addresses: 8 new pods get some that 8 old ones had, so a late DEL could free a new pod's, if it went by address.
SMALL = "lab.subnet=10.52.0.0/28"


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_11_the_cause(kind: str, installed: Image, new_node: NewNode, tmp_path: Path) -> None:
    disk = tmp_path / "cni.img"
    disk.touch()
    os.truncate(disk, 320 << 20)  # XFS needs 300 MB
    subprocess.run([f"mkfs.{kind}", "-q", disk], check=True)
    node = new_node(installed, *drive(disk, "cni"))
    with node.scenario(f"{kind}, without us: torn by the cut, every DEL succeeds, the leases stay"):
        node.start(*DISK, WITHOUT_US)
        assert len(node.pods().started) == 8
        assert node.run("findmnt -n -o FSTYPE /var/lib/cni").strip() == kind
        node.commit_names()
        node.power_cut(*DISK, WITHOUT_US, STOP)
        _eight_start_and_eight_stop(node)
        torn = [lease for lease in node.leases() if lease.size == 0]
        assert len(torn) == 8
        assert len(node.leases()) == 16
    with node.scenario(f"{kind}, without us: cut after a sync, every DEL frees its lease"):
        node.run("sync")
        node.power_cut()
        _eight_start_and_eight_stop(node)
        assert [lease for lease in node.leases() if lease.size == 0] == torn, "they stay for good"
        assert len(node.leases()) == 16
    with node.scenario(f"{kind}, with us: nothing stays, and late DELs free no new pod's address"):
        node.run("sync")
        node.power_cut(*DISK, STOP, SMALL)
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared, verdict.torn) == ("unknown", 16, 16, 8)
        for torn_by_the_cut in (True, False):
            _late_dels_are_harmless(node)
            if torn_by_the_cut:
                node.commit_names()
            else:
                node.run("sync")
            node.power_cut()
            verdict = node.verdict()
            assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 8, 8)
            assert verdict.torn == (8 if torn_by_the_cut else 0)
        _late_dels_are_harmless(node)


def _late_dels_are_harmless(node: Node) -> None:
    """The old sandboxes got their DEL after the new pods had started: all of these still have their lease."""
    pods = _eight_start_and_eight_stop(node)
    owners = {node.run(f"head -c 64 {LEASES}/{lease.name}") for lease in node.leases()}
    assert owners == set(pods.started)
    node.nothing_lost()


def _eight_start_and_eight_stop(node: Node) -> Pods:
    pods = node.pods()
    assert (len(pods.started), len(pods.stopped), pods.not_stopped) == (8, 8, ()), pods
    return pods
