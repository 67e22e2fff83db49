"""Twenty power cuts at random moments of boot and shutdown, each looked at from outside before the next power-on."""

import os
import random
import re
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from node import CONFIG, RKE2, UNIT, Node

from cni_lease_reset.core.model import BootId, DamagedMarker, Marker, NoMarker, Reading, State
from cni_lease_reset.edges import marker

CUTS = 20
OPTIONS = ("lab.cni_disk=rw", "lab.pods=3")
RAN, STOPPING, STOPPED = (f"{word} {UNIT}" for word in ("Finished", "Stopping", "Stopped"))


class Witness(NamedTuple):
    """What the disk says after a cut, its journal replayed as the next mount would."""

    reading: Reading
    leases: frozenset[tuple[str, str]]  # address and inode, wherever they lie


def look(disk: Path, copy: Path) -> Witness:
    """Look at a copy of the disk, so that the machine finds its own as the cut left it."""
    subprocess.run(["cp", "--sparse=always", disk, copy], check=True)
    checked = subprocess.run(["e2fsck", "-p", copy], check=False, stdout=subprocess.DEVNULL)
    assert checked.returncode in (0, 1), "the file system itself is broken"
    text = _debugfs(copy, "cat cni-lease-reset/marker")
    found: Reading = marker.parse(text.encode()) if _names(copy, "cni-lease-reset").get("marker") else NoMarker()
    folders = ["networks/k8s-pod-network"]
    folders += [
        f"cni-lease-reset/set-aside/{reset}/k8s-pod-network" for reset in _names(copy, "cni-lease-reset/set-aside")
    ]
    names = [entry for folder in folders for entry in _names(copy, folder).items()]
    return Witness(found, frozenset((name, inode) for name, inode in names if re.match(r"\d+\.\d+\.", name)))


def _debugfs(disk: Path, request: str) -> str:
    return subprocess.run(["debugfs", "-R", request, disk], check=True, capture_output=True, text=True).stdout


def _names(disk: Path, folder: str) -> dict[str, str]:
    rows = [row.split("/") for row in _debugfs(disk, f"ls -p /{folder}").splitlines() if row.startswith("/")]
    return {row[5]: row[1] for row in rows if row[5] not in (".", "..")}


class Boots:
    """What the serial console of each boot showed, by boot id; the newest last."""

    def __init__(self) -> None:
        self.consoles: dict[BootId, str] = {}

    def judge(self, reading: Reading) -> str:
        """Say what a marker is, and fail where it claims a clean shutdown that the console does not bear out."""
        match reading:
            case NoMarker():
                return "none"
            case DamagedMarker(why=why):
                return f"damaged: {why}"
            case Marker(state=State.RUNNING):
                return "running"
        console = self.consoles[reading.boot_id]
        later = list(self.consoles.values())[list(self.consoles).index(reading.boot_id) + 1 :]
        assert not any(RAN in each for each in later), "a later boot ran, and yet the disk says clean"
        if STOPPED in console:
            return "clean"
        # systemd tells the console after the program has ended: a cut in between proves neither.
        assert STOPPING in console, "clean, and the unit had not been stopped"
        return "clean (written, and cut before systemd said so)"


def test_07_power_cuts_at_random_moments(two_disk_node: Node, cni_disk: Path) -> None:
    node, boots = two_disk_node, Boots()
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    print(f"SEED={seed}", flush=True)
    chance = random.Random(seed)
    with node.scenario(f"{CUTS} power cuts at random moments, SEED={seed}"):
        begun, ended = _lengths(node, boots)
        sides = ["boot"] * (CUTS // 2) + ["shutdown"] * (CUTS - CUTS // 2)
        chance.shuffle(sides)
        before = look(cni_disk, cni_disk.with_suffix(".copy"))
        for side in sides:
            moment = chance.uniform(0, 1.5 * begun if side == "boot" else 1.2 * ended)
            boot_id = _begin(node)
            if side == "shutdown":
                _wait_for_rke2(node, pods=chance.random() < 0.5)
                node.run("systemctl --no-block reboot")
            time.sleep(moment)  # the one place where time itself is what is tested
            node.cut()
            boots.consoles[boot_id] = _plain(node.console)
            after = look(cni_disk, cni_disk.with_suffix(".copy"))
            print(
                f"   {side} + {moment:.1f} s: marker {boots.judge(after.reading)}, {len(after.leases)} leases",
                flush=True,
            )
            if STOPPED in boots.consoles[boot_id]:
                assert isinstance(after.reading, Marker)
                assert after.reading.state is State.CLEAN
            assert before.leases <= after.leases, "a lease is gone"
            before = after
        node.start(*OPTIONS)
        verdict = node.verdict()
        pods = node.pods()
        assert (len(pods.started), pods.errors) == (3, ())
        node.nothing_lost()
        assert len(node.leases()) == 3 + verdict.kept
        assert {(lease.name, str(lease.inode)) for lease in node.files("/var/lib/cni")} >= before.leases
    with node.scenario("... and one more, to see the pool free"):
        node.run("sync")
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.kept) == ("unclean", 0)
        pods = node.pods()
        assert (len(pods.started), pods.errors) == (3, ())


def _begin(node: Node) -> BootId:
    node.start(*OPTIONS)
    return BootId(node.run("cat /proc/sys/kernel/random/boot_id").strip())


def _wait_for_rke2(node: Node, *, pods: bool) -> None:
    node.settled()
    if pods:
        node.pods()
    else:
        node.wait_until(f"[[ $(systemctl show -P InactiveExitTimestampMonotonic {RKE2}) != 0 ]]")


def _lengths(node: Node, boots: Boots) -> tuple[float, float]:
    """Measure how long a boot takes from the shell's hello to our unit's end, and a shutdown: machines differ."""
    boot_id = _begin(node)
    began = time.monotonic()
    node.settled()
    begun = time.monotonic() - began
    node.write(CONFIG, "keep_resets: 1000\n")
    node.pods()
    began = time.monotonic()
    node.run("systemctl --no-block poweroff")
    node.wait_off()
    boots.consoles[boot_id] = _plain(node.console)
    return begun, time.monotonic() - began


def _plain(console: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", console)
