"""``recover`` on a node that is out of addresses now."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from node import CONFIG, LEASES, RKE2, STATE, Node

FULL = "no IP addresses available in range set"
POOL = "10.52.0.0/27"  # 29 addresses: 8 living pods and 21 leaked
UNATTENDED = "cni-lease-reset-recover.service"
RECOVER = "cni-lease-reset recover --yes"
CONFLIST = "/etc/cni/net.d/10-pods.conflist"
# A pod that starts on a full pool, with the network and the plugin of RKE2's containerd. Each attempt that fails gets its
# DEL and a new namespace next time, as kubelet and containerd do it: a half-made eth0 would be in the way for ever.
LATE = f"""
set -e
network=$(python3 -c '
import json
conflist = json.load(open("{CONFLIST}"))
print(json.dumps({{"cniVersion": conflist["cniVersion"], "name": conflist["name"]}} | conflist["plugins"][0]))')
bridge() {{ CNI_COMMAND=$1 /usr/lib/cni/bridge <<<"$network"; }}
export CNI_CONTAINERID=$(printf 'ef%.0s' {{1..32}}) CNI_NETNS=/run/netns/late CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni
ip netns add late
until bridge ADD; do
    bridge DEL
    ip netns del late
    sleep 1
    ip netns add late
done
"""
# Runs recover and kills it at the last of some events, in their order; "os.fork" is before it looks who lives, in a child,
# and an event of that child's counts, too.
KILLED = """
import os, signal, sys
_, *events = sys.argv
sys.argv[1:] = ["recover", "--yes"]
us = os.getpid()

def watch(event, arguments):
    if events and event == events[0]:
        events.pop(0)
        if not events:
            os.kill(us, signal.SIGKILL)

sys.addaudithook(watch)
with open("/usr/bin/cni-lease-reset") as program:
    exec(compile(program.read(), program.name, "exec"))
"""
_LOCKED = ("fcntl.flock", "fcntl.flock")  # host-local's, then ours
STEPS = {
    "before it looks": ("os.fork",),
    "under the locks": (*_LOCKED, "os.fork"),
    "while its child looks": (*_LOCKED, "os.fork", "os.listdir", "os.listdir"),  # its own descriptors, then /proc
    "while leases move": (*_LOCKED, *["os.rename"] * 11),
}


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
    """Use up the pool with leases that are an hour old; recover spares the young ones."""
    _host_local(node, container, 22)
    _age(node, container)
    assert len(node.leases()) == 29


def _age(node: Node, owner: str) -> None:
    node.run(f"cd {LEASES} && touch -d '1 hour ago' $(grep -l ^{owner} 10.*)")


def _flat(text: str) -> str:
    """Undo the wrapping of lines."""
    return " ".join(text.split())


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
        node.wait_until(f"journalctl -b -u late | grep -q '{FULL}'")
        with _answering_throughout(node):
            told = node.run(RECOVER)
            node.wait_until("! systemctl -q is-active late")
        print(told, flush=True)
        assert node.show("late", "ActiveState") == "inactive", "the waiting pod did not start"
        assert "k8s-pod-network: 21 leases set aside as" in told
        assert _living(node, pods) == before
        assert _unharmed(node) == unharmed
        (late,) = {lease.name for lease in node.leases()} - set(pods)
        assert node.ping(late)
        assert _host_local(node, "new", 22) == 20, "the other addresses are free"
    # From now on the late pod has no process at all, and its lease is old: only its namespace says that it lives.
    node.run(f"rm $(grep -l ^new {LEASES}/10.*)")
    _age(node, "efef")
    pods = (*pods, late)
    before = _living(node, pods)

    node.write("/run/killed", KILLED)
    _leak(node, "again")
    for step, events in STEPS.items():
        with node.scenario(f"recover killed {step}"):
            there = {lease.inode for lease in node.leases()}
            node.run(f"python3 -I /run/killed {' '.join(events)}; (( $? == 128 + 9 ))")
            node.run(f"flock -n {LEASES}/lock flock -n {STATE} true")  # its child, if it is still there, has no lock
            assert _living(node, pods) == before
            assert all(node.ping(pod) for pod in pods)
            assert _unharmed(node) == unharmed
            assert there <= {file.inode for file in node.files("/var/lib/cni")}, "a lease is gone"
            moved = 10 if "os.rename" in events else 0
            assert len(node.leases()) == 29 - moved
            assert _host_local(node, "after", 22) == moved, "an address twice, or one lost"
    _age(node, "after")
    with node.scenario("recover, to the end"):
        told = node.run(RECOVER)
        assert "k8s-pod-network: 20 leases set aside as" in told
        assert f"1 kept, living until reboot, by address in a namespace without a process: {late}" in _flat(told)
        assert _living(node, pods) == before
        assert len(node.leases()) == 9

    with node.scenario("recover unattended, in its cage"):
        _leak(node, "hourly")
        node.write(CONFIG, "max_kept_leases: 20\n")
        node.run(f"systemctl start {UNATTENDED}")
        assert _living(node, pods) == before
        assert len(node.leases()) == 9
        assert _unharmed(node) == unharmed
    with node.scenario("... and while the machine goes down"):
        _leak(node, "evening")
        # It waits for host-local's lock when the machine goes down; the lock's holder, ordered before it, ends after it.
        node.run(f"systemd-run -q -u plugin -p Before={UNATTENDED} flock {LEASES}/lock sleep infinity")
        node.wait_until(f"! flock -n {LEASES}/lock true")
        node.run(f"systemctl start --no-block {UNATTENDED}")
        node.goes_down("systemctl reboot")
        verdict = node.verdict()
        assert verdict.verdict == "clean", "it ends before we mark"
        assert (verdict.found, verdict.cleared) == (29, 29), "it is crowded still"
        node.nothing_lost()
        assert len(node.pods().started) == 8
    node.run(f"rm {CONFIG}")

    (newest, *_) = json.loads(node.run("cni-lease-reset status --json"))["resets"]
    assert newest["name"] == verdict.reset
    with node.scenario("restore, with RKE2 and all pods up"):
        pods = node.pod_addresses()
        before = _living(node, pods)
        told = node.run(f"cni-lease-reset restore {verdict.reset}")
        assert told.startswith("k8s-pod-network: 21 put back, 8 left\n")
        assert _living(node, pods) == before
        assert len(node.leases()) == 29
        assert all(node.ping(pod) for pod in pods)
    with node.scenario("restore: what a boot set aside is put back while RKE2 is down"):
        inodes = [(lease.name, lease.inode) for lease in node.leases()]
        node.run("sync")
        node.power_cut(f"lab.subnet={POOL}", f"systemd.mask={RKE2}")
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 29, 29)
        assert node.leases() == ()
        told = node.run(f"cni-lease-reset restore {verdict.reset}")
        assert told == "k8s-pod-network: 29 put back, 0 left\n"
        assert [(lease.name, lease.inode) for lease in node.leases()] == inodes
        node.nothing_lost()
        node.run("sync")
        node.power_cut(f"lab.subnet={POOL}")
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 29, 29)
        assert len(node.pods().started) == 8
