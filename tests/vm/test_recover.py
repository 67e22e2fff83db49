"""``recover`` on a node that is out of addresses now."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from node import CONFIG, LEASES, RKE2, Node

POOL = "10.52.0.0/27"  # 29 addresses: 8 living pods and 21 leaked
UNATTENDED = "cni-lease-reset-recover.service"
RECOVER = "cni-lease-reset recover --yes"
# A pod whose sandbox starts on a full pool, with the plugin that RKE2's containerd calls: again until it has an address.
LATE = f"""
set -e
ip netns add late
network='{{"cniVersion": "0.3.1", "name": "k8s-pod-network", "type": "bridge", "bridge": "cni0",
    "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{POOL}"}}]]}}}}'
export CNI_COMMAND=ADD CNI_CONTAINERID=$(printf 'ef%.0s' {{1..32}}) CNI_NETNS=/run/netns/late CNI_IFNAME=eth0
export CNI_PATH=/usr/lib/cni
until /usr/lib/cni/bridge <<<"$network"; do :; done
"""


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


def _leak(node: Node, container: str) -> None:
    """Use up the pool, with leases that are an hour old; recover spares the young ones."""
    _host_local(node, container, 22)
    node.run(f"cd {LEASES} && grep -l ^{container} 10.* | xargs touch -d '1 hour ago'")
    assert len(node.leases()) == 29


def _old_enough(node: Node) -> None:
    """Wait until recover no longer spares all leases for the machine's youth."""
    node.wait_until("(( $(cut -d. -f1 /proc/uptime) >= 300 ))")


def _unharmed(node: Node) -> str:
    """What a recover must not change: RKE2's start and process, and every shim."""
    shims = "pgrep -a containerd-shim | sort"
    return node.run(f"systemctl show -P ActiveEnterTimestampMonotonic -P MainPID {RKE2}; {shims}")


def test_14_recover(node: Node) -> None:
    node.start(f"lab.subnet={POOL}")
    assert len(node.pods().started) == 8
    pods = node.pod_addresses()
    before, unharmed = _living(node, pods), _unharmed(node)
    _old_enough(node)
    with node.scenario("recover: 8 living pods, 21 leaked leases, no address left"):
        _leak(node, "leaked")
        node.write("/run/late", LATE)
        node.run("systemd-run -q -u late bash /run/late")
        with _answering_throughout(node):
            told = node.run(RECOVER)
            node.wait_until("[[ $(systemctl show -P ActiveState late) == inactive ]]")  # the waiting pod has started
        print(told, flush=True)
        assert "k8s-pod-network: 21 leases set aside as" in told
        assert _living(node, pods) == before
        assert _unharmed(node) == unharmed
        (late,) = {lease.name for lease in node.leases()} - set(pods)
        assert node.ping(late)
        assert _host_local(node, "new", 22) == 20, "the other addresses are free"
    node.run(f"ip netns del late; cd {LEASES} && rm $(grep -l -e ^new -e ^ef 10.*)")

    # Killed when it begins, when it holds host-local's lock, and when leases have begun to move.
    steps = {
        "at its start": "pgrep -f 'recover --yes'",
        "under host-local's lock": f"! flock -n {LEASES}/lock true",
        "once leases move": f"[[ $(ls {LEASES} | grep -c ^10) -lt 29 ]]",
    }
    for step, reached in steps.items():
        with node.scenario(f"recover killed {step}"):
            _leak(node, f"again-{len(step)}-")
            node.run(f"(setsid {RECOVER} </dev/null >/run/told 2>&1 &)")
            node.run(f"timeout 300 bash -c 'until {reached} >/dev/null; do :; done'")
            node.run("pkill -9 -f 'recover --yes'; true")
            assert _living(node, pods) == before
            assert all(node.ping(pod) for pod in pods)
            assert _unharmed(node) == unharmed
            free = 29 - len(node.leases())
            assert _host_local(node, f"after-{len(step)}-", 22) == free, "an address twice, or one lost"
            node.run(f"cd {LEASES} && touch -d '1 hour ago' $(grep -l -e ^after -e ^again 10.*)")
    with node.scenario("recover, to the end"):
        node.run(RECOVER)
        assert _living(node, pods) == before
        assert len(node.leases()) == 8

    with node.scenario("recover unattended, in its cage"):
        _leak(node, "hourly")
        node.write(CONFIG, "max_kept_leases: 20\n")
        node.run(f"systemctl start {UNATTENDED}")
        assert _living(node, pods) == before
        assert len(node.leases()) == 8
        assert _unharmed(node) == unharmed
    with node.scenario("... and while the machine goes down"):
        _leak(node, "late")
        node.run(f"systemctl start --no-block {UNATTENDED}")
        node.goes_down("systemctl reboot")
        assert node.verdict().verdict == "clean", "it ends before we mark"
        assert len(node.pods().started) == 8
    node.run(f"rm {CONFIG}")

    (newest, *_) = json.loads(node.run("cni-lease-reset status --json"))["resets"]
    with node.scenario("restore, with RKE2 and all pods up"):
        pods = node.pod_addresses()
        before, number = _living(node, pods), len(node.leases())
        told = node.run(f"cni-lease-reset restore {newest['name']}")
        assert "put back" in told
        assert _living(node, pods) == before
        assert len(node.leases()) > number
    with node.scenario("restore: what a boot set aside is put back while RKE2 is down"):
        node.run("sync")
        node.power_cut(f"lab.subnet={POOL}", f"systemd.mask={RKE2}")
        verdict = node.verdict()
        assert (verdict.verdict, verdict.cleared) == ("unclean", verdict.found)
        assert node.leases() == ()
        told = node.run(f"cni-lease-reset restore {verdict.reset}")
        assert told == f"k8s-pod-network: {verdict.found} put back, 0 left\n"
        assert {lease.name for lease in node.leases()} >= set(pods)
        node.nothing_lost()
        node.run("sync")
        node.power_cut(f"lab.subnet={POOL}")
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found) == ("unclean", verdict.cleared)
        assert len(node.pods().started) == 8
