"""Two families, a neighbour in the same data directory, torn leases; and two nodes on one wire."""

from conftest import NewNode
from machine import Image
from node import CONFIG, NETWORKS, NO_WRITEBACK, RKE2, WITHOUT_US, Node

DUAL_STACK = ("lab.subnet=10.52.0.0/24,fd00:52::/64", "lab.pods=4", NO_WRITEBACK)


def _neighbour_takes(node: Node, address_count: int) -> None:
    """Another network of host-local in the same data directory, driven by hand."""
    network = '{"cniVersion":"0.3.1","name":"storage","ipam":{"type":"host-local","subnet":"10.99.0.0/24"}}'
    call = f"CNI_COMMAND=ADD CNI_NETNS=/x CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni /usr/lib/cni/host-local <<<'{network}'"
    node.run(f"for n in $(seq {address_count}); do CNI_CONTAINERID=storage$n {call} || exit; done; sync")


def test_08_dual_stack_a_neighbour_and_torn_leases(node: Node) -> None:
    storage = f"{NETWORKS}/storage"
    node.start(*DUAL_STACK)
    assert len(node.pods().started) == 4
    assert len(node.leases()) == 8
    _neighbour_takes(node, 3)
    theirs = node.files(storage)
    assert len(theirs) == 5  # three leases, last_reserved_ip.0 and the lock

    with node.scenario("dual stack, all torn by the cut, beside another network"):
        node.goes_down("systemctl reboot")
        assert (node.verdict().verdict, node.verdicts()[0].cleared) == ("clean", 0)
        assert len(node.pods().started) == 4
        node.commit_names()
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared, verdict.torn) == ("unclean", 16, 16, 8)
        assert "storage 3" in verdict.reason
        assert node.files(storage) == theirs
        node.nothing_lost()

    with node.scenario("a clean mark that newer leases disprove (a boot without us in between)"):
        node.pods()
        node.goes_down("systemctl poweroff", *DUAL_STACK, WITHOUT_US)
        assert len(node.pods().started) == 4
        node.commit_names()
        node.power_cut(*DUAL_STACK)
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared, verdict.torn) == ("unknown", 16, 16, 8)
        assert "is newer than the clean mark of" in verdict.reason
        assert node.files(storage) == theirs
        node.nothing_lost()

    with node.scenario("a crowded network after a clean shutdown"):
        node.pods()
        node.write(CONFIG, "max_kept_leases: 3\n")
        node.goes_down("systemctl reboot")
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("clean", 8, 8)
        assert node.files(storage) == theirs
        node.nothing_lost()
        assert len(node.pods().started) == 4


def _wire(mine: str, other: str) -> tuple[str, ...]:
    """One end of a wire between two machines: each sends its frames to the other's socket."""
    ends = f"local.type=unix,local.path=../wire{mine},remote.type=unix,remote.path=../wire{other}"
    card = f"virtio-net-pci,netdev=wire,mac=52:54:00:00:00:0{mine}"
    return ("-netdev", f"dgram,id=wire,{ends}", "-device", card)


def _reach(one: Node, other: Node) -> None:
    """Every pod of the other node answers a pod of this one, and its node."""
    namespace = one.run("basename $(ls -d /run/netns/cni-* | head -1)").strip()
    for address in other.pod_addresses():
        assert one.ping(address)
        assert one.ping(address, namespace)


def test_09_two_nodes_on_one_wire(installed: Image, new_node: NewNode) -> None:
    first = new_node(installed, *_wire("1", "2"), name="node1")
    second = new_node(installed, *_wire("2", "1"), name="node2")
    first.start(*_ends("1", "2"))
    second.start(*_ends("2", "1"))
    for node in (first, second):
        assert len(node.pods().started) == 3
        node.run("sync")
    _reach(first, second)
    _reach(second, first)

    with first.scenario("two nodes: node 1 loses power"):
        leases, pods = second.leases(), second.pod_addresses()
        namespace = second.run("basename $(ls -d /run/netns/cni-* | head -1)").strip()
        traffic = f"ip netns exec {namespace} ping -q -i 0.5 {pods[1]}"
        second.run(
            f"systemd-run --quiet --unit=traffic --property=KillSignal=SIGINT -p StandardOutput=journal {traffic}"
        )
        first.power_cut()
        verdict = first.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 3, 3)
        assert len(first.pods().started) == 3
        first.nothing_lost()
        second.run("systemctl stop traffic; journalctl --sync")
        lines = second.run("journalctl -b -u traffic -o cat | grep 'packet loss'")
        first.figure(f"node 2 meanwhile: {lines.strip()}")
        assert " 0% packet loss" in lines
        assert second.leases() == leases
        assert second.pod_addresses() == pods
        assert second.show(RKE2, "NRestarts") == "0"
        _reach(first, second)
        _reach(second, first)

    with first.scenario("two nodes: both lose power at once"):
        for node in (first, second):
            node.run("sync")
        first.cut()
        second.cut()
        first.start(*_ends("1", "2"))
        second.start(*_ends("2", "1"))
        for node in (first, second):
            verdict = node.verdict()
            assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 3, 3)
            assert len(node.pods().started) == 3
            node.nothing_lost()
        _reach(first, second)
        _reach(second, first)


def _ends(mine: str, other: str) -> tuple[str, ...]:
    wire = (f"lab.address=192.168.52.{mine}/24", f"lab.route=10.52.{other}.0/24=192.168.52.{other}")
    return (*wire, f"lab.subnet=10.52.{mine}.0/24", "lab.pods=3", f"systemd.hostname=node{mine}")
