"""Whatever is broken, RKE2 starts in time, the journal says why, nothing is lost, and a mended boot makes up for it."""

import re

from node import CONFIG, PATIENCE, RKE2, UNIT, Node

from cni_lease_reset.edges.lock import SYSTEMD

DROP_IN = f"/etc/systemd/system/{UNIT}.d/lab.conf"
WRITABLE, READ_ONLY = "lab.cni_disk=rw", "lab.cni_disk=ro"
PODS = "lab.pods=3"
# Guest seconds between our start and RKE2's. 20 s TimeoutStartSec, 30 s until the kill, and an emulated processor.
BOUND = 90
# What we do without D-Bus. An emulated processor on a busy machine may be too slow for systemctl, too; that is told.
INSTEAD = f"(?:asked systemctl instead|systemctl did not answer within {SYSTEMD / 2:g} s; relying on the look at proc)"

SILENT_BUS = """[Unit]
Description=A D-Bus that accepts and never answers
[Service]
ExecStart=
ExecStart=/usr/bin/python3 -c 'import socket, time; s = socket.socket(fileno=3); s.listen(99); [c for c in iter(s.accept, None)]'
Type=exec
"""


def _boots(node: Node, *options: str) -> None:
    """Lose power with leases on disk, boot, and see RKE2 up in time."""
    node.run("sync")
    node.power_cut(PODS, *options)
    node.wait_until(f"[[ $(systemctl show -P InactiveExitTimestampMonotonic {RKE2}) != 0 ]]")
    waited = node.moment(RKE2, "InactiveExit") - node.moment(UNIT, "InactiveExit")
    node.figure(f"RKE2 began {waited:.1f} s after us")
    assert waited < BOUND


def _clears(node: Node, *, at_least: int) -> None:
    verdict = node.verdict()
    assert verdict.verdict in ("unclean", "unknown")
    assert verdict.cleared == verdict.found >= at_least, verdict
    node.nothing_lost()
    assert len(node.pods().started) == 3


def _told(pattern: str, node: Node) -> str:
    """What our unit told the journal, in the words of a pattern."""
    found = re.search(pattern, node.said())
    assert found, f"nothing like {pattern}"
    return found[0]


def test_06_whatever_is_broken_rke2_starts(two_disk_node: Node) -> None:
    node = two_disk_node
    node.start(PODS, WRITABLE)
    assert len(node.pods().started) == 3
    assert node.run("findmnt -n -o FSTYPE,SOURCE /var/lib/cni").split() == ["ext4", "/dev/vdb"]

    with node.scenario("dbus.service masked"):
        _boots(node, WRITABLE, "systemd.mask=dbus.service", "systemd.mask=dbus.socket")
        _clears(node, at_least=3)
        node.figure(_told(f"D-Bus [^;]*; {INSTEAD}", node))

    with node.scenario("D-Bus accepts and never answers"):
        node.write("/etc/systemd/system/dbus.service.d/lab.conf", SILENT_BUS)
        _boots(node, WRITABLE)
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 3, 3)
        node.figure(_told(rf"D-Bus cannot be asked \(no answer within {SYSTEMD:g} s\); {INSTEAD}", node))
        node.nothing_lost()  # and no new pods: runc wants D-Bus, too
        node.run("rm -r /etc/systemd/system/dbus.service.d")

    with node.scenario("a broken config.yaml"):
        node.write(CONFIG, "networks: [k8s-pod-network\n")
        _boots(node, WRITABLE)
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 0, 0)
        assert "config.yaml:" in verdict.reason
        node.nothing_lost()
        assert len(node.pods().started) == 3
    with node.scenario("... mended"):
        node.write(CONFIG, "")
        _boots(node, WRITABLE)
        _clears(node, at_least=3)

    with node.scenario("/var/lib/cni read-only"):
        _boots(node, READ_ONLY)
        verdict = node.verdict()
        assert verdict.cleared == 0
        assert "Read-only file system" in verdict.reason
        node.nothing_lost()
    with node.scenario("... mended"):
        _boots(node, WRITABLE)
        _clears(node, at_least=3)

    with node.scenario("/var/lib/cni full"):
        node.run("cat /dev/zero >/var/lib/cni/ballast; sync")
        _boots(node, WRITABLE)
        verdict = node.verdict()
        assert verdict.verdict in ("unclean", "unknown")
        node.nothing_lost()
        node.figure(f"the journal: {verdict.message}")
        node.pods()
        node.run("rm /var/lib/cni/ballast")
    with node.scenario("... mended"):
        _boots(node, WRITABLE)
        _clears(node, at_least=3)

    with node.scenario("our program replaced by one that hangs"):
        hang = "import signal; signal.signal(15, signal.SIG_IGN); [signal.pause() for _ in iter(int, 1)]"
        node.run(f"rm {PATIENCE}")
        node.write(DROP_IN, f'[Service]\nExecStart=\nExecStart=/usr/bin/python3 -c "{hang}"\n')
        _boots(node, WRITABLE)
        assert node.show(UNIT, "Result") == "timeout"
        assert "timed out" in node.said()
        node.nothing_lost()
        assert len(node.pods().started) == 3
    with node.scenario("... mended"):
        node.write(PATIENCE, "[Service]\nTimeoutStartSec=10min\n")
        node.run(f"rm {DROP_IN}")
        _boots(node, WRITABLE)
        _clears(node, at_least=6)
