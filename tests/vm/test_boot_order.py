"""We run while the node waits for its network, and cost RKE2 nothing."""

import statistics

from node import RKE2, UNIT, WITHOUT_US, Node

PAIRS = 5


def test_10_rke2_does_not_wait_for_us(node: Node) -> None:
    with node.scenario("a network that takes 10 s"):
        node.start("lab.pods=0", "lab.slow_network")
        node.pods()
        ours, online = node.moment(UNIT, "ActiveEnter"), node.moment("network-online.target", "ActiveEnter")
        print(f"   ours done at {ours:.1f} s, network-online.target at {online:.1f} s", flush=True)
        assert ours < online
        chain = node.run(f"systemd-analyze critical-chain --no-pager {RKE2}")
        print(chain, flush=True)
        assert "lab-slow-network.service" in chain
        assert UNIT not in chain
    node.goes_down("systemctl poweroff", "lab.pods=0")
    starts: dict[str, list[float]] = {"enabled": [], "masked": []}
    with node.scenario(f"{PAIRS} pairs of boots, enabled and masked"):
        for _ in range(PAIRS):
            for how, options in (("enabled", ()), ("masked", (WITHOUT_US,))):
                node.goes_down("systemctl poweroff", "lab.pods=0", *options)
                node.pods()
                starts[how].append(node.moment(RKE2, "InactiveExit"))
        for how, seconds in starts.items():
            print(f"   {how}: {', '.join(f'{each:.1f}' for each in seconds)} s", flush=True)
        medians = {how: statistics.median(seconds) for how, seconds in starts.items()}
        difference = medians["enabled"] - medians["masked"]
        print(f"   RKE2 starts {difference:+.2f} s later with us (medians)", flush=True)
        assert difference < 1
