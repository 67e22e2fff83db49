"""``recover`` on a node that is out of addresses now."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from node import LEASES, RKE2, Node

WORKER = "cni-lease-reset-recover.service"
POOL = "10.52.0.0/27"  # 29 addresses: 8 living pods and 21 leaked


def _host_local(node: Node, container: str, count: int) -> int:
    """Allocate up to ``count`` more addresses with the plugin itself, and return how many it gave."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": POOL}]]}
    network = json.dumps({"cniVersion": "0.3.1", "name": "k8s-pod-network", "ipam": ipam})
    call = f"CNI_COMMAND=ADD CNI_NETNS=/x CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni /usr/lib/cni/host-local <<<'{network}'"
    loop = f"for n in $(seq {count}); do CNI_CONTAINERID={container}$n {call} >/dev/null 2>&1 && echo given; done"
    return len(node.run(f"{loop}; true").split())


@contextmanager
def _answering_throughout(node: Node) -> Iterator[None]:
    """Every pod answers each of many pings in a ``with`` block."""
    pods = node.pod_addresses()
    for pod in pods:
        ping = f"ping -q -i 0.5 -W 30 {pod}"
        node.run(f"systemd-run -q -u ping-{pod} -p KillSignal=SIGINT -p StandardOutput=journal {ping}")
    yield
    node.run(f"systemctl stop {' '.join(f'ping-{pod}' for pod in pods)}; journalctl --sync")
    for pod in pods:
        lines = node.run(f"journalctl -b -o cat -u ping-{pod} | grep 'packet loss'").splitlines()
        assert " 0% packet loss" in lines[-1], f"{pod}: {lines[-1]}"
    node.figure(f"the last pod's pings meanwhile: {lines[-1]}")


def _living(node: Node, pods: tuple[str, ...]) -> list[tuple[str, int, str]]:
    return [(lease.name, lease.inode, lease.ctime) for lease in node.leases() if lease.name in pods]


def test_14_recover(node: Node) -> None:
    node.start(f"lab.subnet={POOL}")
    assert len(node.pods().started) == 8
    pods = node.pod_addresses()
    before = _living(node, pods)
    with node.scenario("recover: 8 living pods, 21 leaked leases, no address left"):
        assert _host_local(node, "leaked", 22) == 21
        with _answering_throughout(node):
            told = node.run("cni-lease-reset recover --yes")
        print(told, flush=True)
        assert _living(node, pods) == before
        assert len(node.leases()) == 8
        outcome = node.pods()
        assert (len(outcome.alive), outcome.started, outcome.errors) == (8, (), ())
        assert _host_local(node, "new", 22) == 21, "their addresses are free"

    # Killed when the unit begins, when RKE2 stops, when it has stopped, and when leases have begun to move.
    steps = {
        "at its start": f"[[ $(systemctl show -P MainPID {WORKER}) != 0 ]]",
        "while RKE2 stops": f"! systemctl -q is-active {RKE2}",
        "once RKE2 has stopped": f"[[ $(systemctl show -P ActiveState {RKE2}) == inactive ]]",
        "once leases move": f"[[ $(ls {LEASES} | grep -c ^10) -lt 29 ]]",
    }
    for step, reached in steps.items():
        with node.scenario(f"recover killed {step}"):
            _host_local(node, f"again-{len(step)}-", 22)
            assert len(node.leases()) == 29
            node.run("(setsid cni-lease-reset recover --yes </dev/null >/run/told 2>&1 &)")
            node.run(f"timeout 300 bash -c 'until {reached}; do :; done'")
            node.run(f"systemctl kill -s KILL {WORKER}; true")
            outcome = node.pods()  # RKE2 is back
            assert (len(outcome.alive), outcome.started, outcome.errors) == (8, (), ())
            assert _living(node, pods) == before
            assert all(node.ping(pod) for pod in pods)
            free = 29 - len(node.leases())
            assert _host_local(node, f"after-{len(step)}-", 22) == free, "an address twice, or one lost"
    with node.scenario("recover, to the end"):
        node.run("cni-lease-reset recover --yes")
        assert _living(node, pods) == before
        assert len(node.leases()) == 8
        assert len(node.pods().alive) == 8  # it does not wait for RKE2

    with node.scenario("restore: refused under living pods"), node.untouched_leases():
        (newest, *_) = json.loads(node.run("cni-lease-reset status --json"))["resets"]
        refused = node.try_run(f"cni-lease-reset restore {newest['name']}")
        assert (refused.status, refused.stdout) == (75, ""), refused
        assert f"nothing was put back: {RKE2} is active" in refused.stderr
    with node.scenario("restore: what a boot set aside is put back while RKE2 is down"):
        node.run("sync")
        node.power_cut(f"lab.subnet={POOL}", f"systemd.mask={RKE2}")
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 8, 8)
        assert node.leases() == ()
        assert node.run(f"cni-lease-reset restore {verdict.reset}") == "k8s-pod-network: 8 put back, 0 left\n"
        assert [(lease.name, lease.inode) for lease in node.leases()] == [(name, inode) for name, inode, _ in before]
        node.nothing_lost()
        node.run("sync")
        node.power_cut(f"lab.subnet={POOL}")
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 8, 8)
        assert len(node.pods().started) == 8
