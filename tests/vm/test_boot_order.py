"""We run while the node waits for its network, and cost RKE2 nothing."""

import statistics
import subprocess

import pytest
from node import RKE2, UNIT, WITHOUT_US, Node

PAIRS = 5
STARTS = 15
FREE = "lab-free.service"  # our unit without its cage
# What a bare interpreter takes, in milliseconds: here and in the machine, it says how much slower the emulation is.
INTERPRETER = """
import statistics, subprocess, time
def once():
    began = time.monotonic()
    subprocess.run(["/usr/bin/python3", "-I", "-c", "pass"], check=True)
    return 1000 * (time.monotonic() - began)
print(statistics.median(once() for _ in range(15)))
"""


@pytest.mark.alone
def test_10_rke2_does_not_wait_for_us(node: Node) -> None:
    with node.scenario("boot order: a network that takes 10 s"):
        node.start("lab.pods=0", "lab.slow_network=yes")
        node.pods()
        ours, online = node.moment(UNIT, "ActiveEnter"), node.moment("network-online.target", "ActiveEnter")
        node.figure(f"ours done {ours:.1f} s after the kernel's start, network-online.target at {online:.1f} s")
        assert ours < online
        chain = node.run(f"systemd-analyze critical-chain --no-pager {RKE2}")
        print(chain, flush=True)
        assert "lab-slow-network.service" in chain
        assert UNIT not in chain
        node.figure(f"`systemd-analyze critical-chain {RKE2}` does not name us")
        blame = next(line for line in node.run("systemd-analyze blame --no-pager").splitlines() if UNIT in line)
        node.figure(f"`systemd-analyze blame`: {' '.join(blame.split())}")
    with node.scenario("boot order: the price of the cage"):
        node.run(f"sed '/^# The cage/,$d' $(systemctl show -P FragmentPath {UNIT}) >/run/systemd/system/{FREE}")
        node.run("systemctl daemon-reload")
        took: dict[str, list[float]] = {UNIT: [], FREE: []}
        for _ in range(STARTS):
            for unit, seconds in took.items():
                node.run(f"systemctl restart {unit}")
                seconds.append(node.moment(unit, "ActiveEnter") - node.moment(unit, "InactiveExit"))
        caged, free = (1000 * statistics.median(each) for each in took.values())
        node.figure(
            f"a start (same boot) takes {caged:.0f} ms in its cage and {free:.0f} ms without, {caged / free:.2f} times "
            f"as long (medians of {STARTS} each, on an emulated processor)"
        )
    node.goes_down("systemctl poweroff", "lab.pods=0")
    starts: dict[str, list[float]] = {"enabled": [], "masked": []}
    with node.scenario(f"boot order: {PAIRS} pairs of boots, enabled and masked"):
        for _ in range(PAIRS):
            for how, options in (("enabled", ()), ("masked", (WITHOUT_US,))):
                node.goes_down("systemctl poweroff", "lab.pods=0", *options)
                node.pods()
                starts[how].append(node.moment(RKE2, "InactiveExit"))
        for how, moments in starts.items():
            node.figure(f"RKE2 begins with us {how} after {', '.join(f'{each:.1f}' for each in moments)} s")
        medians = {how: statistics.median(moments) for how, moments in starts.items()}
        difference = medians["enabled"] - medians["masked"]
        # Where nothing else is waited for, RKE2 waits for our work. The bound is for a processor, not for its emulation.
        command = ["/usr/bin/python3", "-c", INTERPRETER]
        here = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        there = float(node.run(f"python3 -c '{INTERPRETER}'"))
        node.figure(
            f"medians: RKE2 begins {difference:+.2f} s later with us; a bare interpreter takes {there:.0f} ms there "
            f"and {here:.0f} ms here, {there / here:.0f} times less: {1000 * difference * here / there:+.0f} ms"
        )
        assert difference * here / there < 1
