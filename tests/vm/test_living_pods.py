"""Living pods keep their leases, whatever is done to RKE2, to us and to systemd."""

import re
from pathlib import Path

from conftest import NewNode, drive, install
from machine import Image
from node import CONFIG, DEB, RKE2, UNIT, Node

MAIN_PROCESS = f"kill -9 $(systemctl show -P MainPID {RKE2})"
WITHOUT_CAPABILITIES = "systemd-run -q --wait -p CapabilityBoundingSet= {} cni-lease-reset boot"


def _run_by_hand(node: Node) -> None:
    node.run(f"systemctl reset-failed {UNIT}; systemctl restart {UNIT}")


def _rke2_comes_back(node: Node) -> None:
    pods = node.pods()
    assert (len(pods.alive), pods.started, pods.errors) == (8, (), ()), pods


def _named(reason: str, what: str) -> str:
    """The sandbox whose life is the reason."""
    found = re.search(f"{what} ([0-9a-f]{{13}}) lives", reason)
    assert found, reason
    return found[1]


def test_04_living_pods_keep_their_leases(node: Node) -> None:
    node.start("lab.subnet=10.52.0.0/26")
    node.verdict()
    node.pods()
    node.run("sync")
    with node.scenario("systemctl restart rke2-server"), node.untouched_leases():
        node.run(f"systemctl restart {RKE2}")
        _rke2_comes_back(node)
        assert len(node.verdicts()) == 1
    with node.scenario("systemctl restart cni-lease-reset"), node.untouched_leases():
        node.run(f"systemctl restart {UNIT}")
        assert node.verdict_again().verdict == "same-boot"
        assert node.marker()["state"] == "running"
    with node.scenario("systemctl daemon-reexec"), node.untouched_leases():
        node.run("systemctl daemon-reexec")
        assert node.show(UNIT, "ActiveState") == "active"
        assert len(node.verdicts()) == 2
        assert node.marker()["state"] == "running"
    with node.scenario("systemctl stop cni-lease-reset, then a power cut"):
        with node.untouched_leases():
            node.run(f"systemctl stop {UNIT}")
            assert node.marker() == {}, "nobody is there to mark the end"
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.cleared) == ("unknown", 8)
        node.nothing_lost()
        assert len(node.pods().started) == 8
    with node.scenario("failed at boot (configuration), RKE2 goes on"):
        node.write(CONFIG, "network: [k8s-pod-network]\n")
        node.run("sync")
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 0, 0)  # not even counted
        assert "unknown setting 'network', did you mean 'networks'?" in verdict.reason
        assert node.show(UNIT, "ActiveState") == "failed"
        living = [sandbox[:13] for sandbox in node.pods().started]  # until the last boot of this test
        assert len(living) == 8
        node.run("sync")
    node.write(CONFIG, "networks: [k8s-pod-network]\n")
    with node.scenario("... mended, RKE2 restarted, our unit started by hand"), node.untouched_leases():
        node.run(f"systemctl restart {RKE2}")
        _rke2_comes_back(node)
        _run_by_hand(node)
        assert node.verdict_again().verdict == "same-boot"
    with node.scenario("... RKE2's main process killed, our unit started by hand"), node.untouched_leases():
        node.run(f"rm /run/rke2-stand-in.json; {MAIN_PROCESS}")
        _run_by_hand(node)  # while RKE2 is down
        assert node.verdict_again().verdict == "same-boot"
        _rke2_comes_back(node)
        _run_by_hand(node)
        assert node.verdict_again().verdict == "same-boot"
    with node.scenario("... the same with /proc mounted hidepid=2,gid=1234"), node.untouched_leases():
        node.run("mount -o remount,hidepid=2,gid=1234 /proc")
        _run_by_hand(node)
        assert node.verdict_again().verdict == "same-boot"
        node.run(f"rm /run/rke2-stand-in.json; {MAIN_PROCESS}")
        _run_by_hand(node)
        assert node.verdict_again().verdict == "same-boot"
        _rke2_comes_back(node)
    # The record under /run gone as well, so that the guard alone stands between us and the pods.
    with node.scenario("... its record under /run gone too: RKE2 is up"), node.untouched_leases():
        node.run("rm -r /run/cni-lease-reset")
        _run_by_hand(node)
        verdict = node.verdict_again()
        assert (verdict.verdict, verdict.cleared) == ("unknown", 0)
        assert f"{RKE2} is active" in verdict.reason
    with node.scenario("... and RKE2 stopped: it has been up"), node.untouched_leases():
        node.run(f"systemctl stop {RKE2}; rm -r /run/cni-lease-reset")
        _run_by_hand(node)
        verdict = node.verdict_again()
        assert (verdict.verdict, verdict.cleared) == ("unknown", 0)
        assert f"{RKE2} has been up since this kernel started" in verdict.reason
    # Where the runtime has a name that nobody told us, the look for pods alone stands between us and them.
    node.write(CONFIG, "networks: [k8s-pod-network]\nruntime_units: [another.service]\n")
    with node.scenario("... RKE2 under another name, processes hidden"), node.untouched_leases():
        node.run("rm -r /run/cni-lease-reset")
        _run_by_hand(node)
        verdict = node.verdict_again()
        assert (verdict.verdict, verdict.cleared) == ("unknown", 0)
        assert _named(verdict.reason, "(?:pod sandbox|container)") in living  # 252 gives the unit a /proc of its own
    with node.scenario("... and without the cage, as root without capabilities"), node.untouched_leases():
        node.run("rm -r /run/cni-lease-reset")
        node.run(WITHOUT_CAPABILITIES.format(""))
        verdict = node.verdict_again()
        assert (verdict.verdict, verdict.cleared) == ("unknown", 0)
        assert _named(verdict.reason, "container") in living  # no shim is seen, but what containerd keeps below /run
    with node.scenario("... and containerd's state out of sight, too"), node.untouched_leases():
        node.run("rm -r /run/cni-lease-reset")
        node.run(WITHOUT_CAPABILITIES.format("-p TemporaryFileSystem=/run/k3s"))
        verdict = node.verdict_again()
        assert (verdict.verdict, verdict.cleared) == ("unknown", 0)
        assert "the processes of this machine are hidden from us" in verdict.reason
        assert "/proc is mounted with hidepid=" in verdict.reason
    with node.scenario("... and processes visible: shims"), node.untouched_leases():
        node.run("mount -o remount,hidepid=0 /proc; rm -r /run/cni-lease-reset")
        _run_by_hand(node)
        verdict = node.verdict_again()
        assert (verdict.verdict, verdict.cleared) == ("unknown", 0)
        assert _named(verdict.reason, "pod sandbox") in living
    node.write(CONFIG, "networks: [k8s-pod-network]\n")
    with node.scenario("the boot after all that makes up for it, with /proc mounted hidepid=2,gid=1234"):
        node.run("echo 'proc /proc proc hidepid=2,gid=1234 0 0' >>/etc/fstab; sync")
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unknown", 16, 16)
        assert "hidepid=" in node.run("findmnt -no OPTIONS /proc"), "it was not mounted so"
        node.nothing_lost()
        assert len(node.pods().started) == 8


def test_05_the_first_start_on_a_live_node_is_refused(bare: Image, packages: Path, new_node: NewNode) -> None:
    node = new_node(bare, *drive(packages, "packages"))
    node.start("lab.subnet=10.52.0.0/27")
    assert len(node.pods().started) == 8
    node.run("sync")
    with node.scenario("installed and enabled with --now on a live node"), node.untouched_leases():
        install(node, DEB)
        node.run(f"systemctl enable --now {UNIT}")
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unknown", 8, 0)
        assert f"{RKE2} is active" in verdict.reason
        assert node.marker() == {}, "the next boot must judge the same"
    with node.scenario("... and the next boot"):
        node.goes_down("systemctl reboot")
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unknown", 8, 8)
        node.nothing_lost()
        assert len(node.pods().started) == 8
