"""Pool sizes, held against what the real host-local gives out before it has no more."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from cni_config import FLANNEL, IPV6, conflist, flannel, write
from conftest import HostLocal, Tree
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_lease_reset.commands import foreign, pools
from cni_lease_reset.commands.pools import Pool
from cni_lease_reset.core.findings import Lease, Network
from cni_lease_reset.core.model import Config

KEYS = [
    "name",
    "plugins",
    "ipam",
    "type",
    "subnet",
    "ranges",
    "rangeStart",
    "RangeEnd",
    "gateway",
    "datadir",
    "delegates",
]
WORDS = ("10.0.0.0/24", "fd00::/64", "10.0.0.5", "fd00::1", "host-local", "flannel", "usePodCidr", "k8s-pod-network")
SCALARS = st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS) | st.text()
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner), max_leaves=30
)


def sizes(tree: Tree, network: str = "k8s-pod-network", leased: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    return [(pool.family, pool.size) for pool in room(tree, network, leased)]


def room(tree: Tree, network: str = "k8s-pod-network", leased: Iterable[str] = ()) -> tuple[Pool, ...]:
    return pools.read(tree.node, Config()).of(holding(network, leased))


def holding(network: str, leased: Iterable[str]) -> Network:
    return Network(network, found=tuple(Lease(address, None, torn=False) for address in leased))


@pytest.mark.parametrize(
    "entry",
    [
        {"subnet": "10.52.0.0/28"},
        {"subnet": "10.52.0.0/30"},
        {"subnet": "10.52.0.0/28", "gateway": "10.52.0.14"},
        {"subnet": "10.52.0.0/24", "rangeStart": "10.52.0.10", "rangeEnd": "10.52.0.20"},
        {"subnet": "10.52.0.0/28", "rangeEnd": "10.52.0.5"},
        {"subnet": "10.52.0.0/28", "rangeStart": "10.52.0.12", "gateway": "10.52.0.12"},
        {"subnet": "fd00:52::/124"},
        {"subnet": "fd00:52::/125", "rangeStart": "fd00:52::3"},
    ],
)
def test_a_pool_is_what_the_real_host_local_gives(tree: Tree, host_local: HostLocal, entry: dict[str, str]) -> None:
    host_local.ipam["ranges"] = [[entry]]
    conflist(tree, {"type": "host-local", "ranges": [[entry]]})
    given = 0
    while (done := host_local.run("ADD", f"pod{given}")).returncode == 0:
        given += 1
    [pool] = room(tree, leased=tree.leases())
    assert pool[:3] == ("ipv6" if ":" in entry["subnet"] else "ipv4", given, given)
    assert json.loads(done.stdout)["msg"].endswith(f"no IP addresses available in range set: {pool.range_set}")


def test_each_range_set_is_a_pool_of_its_own_and_so_is_the_old_way_of_one_subnet(
    tree: Tree, host_local: HostLocal
) -> None:
    """A pod needs an address of each: the emptiest tells whether the next one starts."""
    small, large = {"subnet": "10.1.0.0/29"}, [{"subnet": "10.2.0.0/29"}, {"subnet": "10.4.0.0/28"}]
    ipam = {"subnet": "10.3.0.0/30", "ranges": [[small], large, [{"subnet": "fd00::/120"}]]}
    host_local.ipam |= ipam
    conflist(tree, ipam | {"type": "host-local"})
    host_local.add("pod")
    with pytest.raises(RuntimeError, match="no IP addresses available in range set: 10.3.0.1-10.3.0.2"):
        host_local.add("another")
    assert room(tree, leased=tree.leases()) == (
        Pool("ipv4", 1, 1, "10.3.0.1-10.3.0.2"),
        Pool("ipv4", 5, 1, "10.1.0.1-10.1.0.6"),
        Pool("ipv4", 18, 1, "10.2.0.1-10.2.0.6,10.4.0.1-10.4.0.14"),
        Pool("ipv6", 254, 1, "fd00::1-fd00::ff"),
    )


def test_leases_in_no_range_set_fill_no_pool(tree: Tree) -> None:
    """A node that got another pod CIDR."""
    conflist(tree, {"type": "host-local", "ranges": [[{"subnet": "10.52.0.0/24"}], [{"subnet": "fd00:52::/120"}]]})
    leased = [*(f"10.51.0.{number}" for number in range(2, 202)), "10.52.0.2", "fd00:51::2", "fd00:52::2"]
    found = room(tree, leased=leased)
    assert [(pool.leases, pool.size) for pool in found] == [(1, 253), (1, 254)]


def test_the_same_range_set_of_two_plugins_is_one_pool(tree: Tree) -> None:
    """node_exporter refuses a whole file for one series that comes twice."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.52.0.0/24"}], [{"subnet": "10.52.0.0/24"}]]}
    other = {"type": "host-local", "subnet": "10.52.0.0/24", "gateway": "10.53.0.1"}
    write(tree, "10.conflist", {"name": "k8s-pod-network", "plugins": [{"ipam": ipam}, {"ipam": other}]})
    assert len(sizes(tree)) == 1


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title, str.swapcase])
def test_the_case_of_keys_is_nothing_to_go_and_so_to_us(
    tree: Tree, host_local: HostLocal, change: Callable[[str], str]
) -> None:
    entry = {change(key): value for key, value in {"subnet": "10.52.0.0/24", "rangeStart": "10.52.0.9"}.items()}
    entry |= {change("rangeEnd"): "10.52.0.10", change("gateway"): "10.52.0.10"}
    host_local.ipam = {change("type"): "host-local", change("dataDir"): str(tree.data), change("ranges"): [[entry]]}
    assert host_local.add("pod") == "10.52.0.9"
    ipam = {change("type"): "host-local", change("dataDir"): "/srv/leases", change("ranges"): [[entry]]}
    write(tree, "10.conf", {change("name"): "k8s-pod-network", change("ipam"): ipam})
    found = pools.read(tree.node, Config(data_dir="/srv/leases")).of(holding("k8s-pod-network", tree.leases()))
    assert found == (Pool("ipv4", 1, 1, "10.52.0.9-10.52.0.10"),)


@pytest.mark.parametrize("subnet", ["usePodCidr", "usePodCIDR"])
def test_canal_leaves_the_subnet_to_flannel(tree: Tree, subnet: str) -> None:
    flannel(tree, FLANNEL + IPV6)
    ranges = [[{"subnet": subnet}], [{"subnet": f"{subnet}IPv6"}]]
    conflist(tree, {"type": "host-local", "ranges": ranges})
    assert sizes(tree) == ([("ipv4", 253), ("ipv6", 2**64 - 2)] if subnet == "usePodCidr" else [])


def test_flannels_own_plugin_takes_its_subnet(tree: Tree) -> None:
    flannel(tree, FLANNEL)
    write(tree, "10-flannel.conf", {"name": "cbr0", "type": "flannel", "delegate": {"isDefaultGateway": True}})
    assert sizes(tree, "cbr0") == [("ipv4", 253)]


def test_a_network_nobody_describes_is_flannels_if_its_leases_are(tree: Tree) -> None:
    flannel(tree, FLANNEL)
    assert sizes(tree, "cbr0", ("10.42.3.7", "10.42.3.8")) == [("ipv4", 253)]
    assert sizes(tree, "cbr0", ("10.99.0.8", "fd00::1")) == []
    assert room(tree, "cbr0") == ()


@pytest.mark.parametrize("stale", ["10.99.0.8", "fd00::1"])
def test_one_stale_lease_hides_no_pool(tree: Tree, stale: str) -> None:
    flannel(tree, FLANNEL)
    found = room(tree, "cbr0", ("10.42.3.7", "10.42.3.8", stale))
    assert found == (Pool("ipv4", 253, 2, "10.42.3.1-10.42.3.254"),)


def test_multus_tells_of_the_networks_it_delegates_to(tree: Tree) -> None:
    inner = {"name": "k8s-pod-network", "plugins": [{"ipam": {"type": "host-local", "subnet": "10.52.0.0/24"}}]}
    write(tree, "00-multus.conf", {"name": "multus-cni-network", "type": "multus", "delegates": [inner]})
    assert sizes(tree) == [("ipv4", 253)]


def test_leases_kept_elsewhere_are_another_pool(tree: Tree) -> None:
    conflist(tree, {"type": "host-local", "subnet": "10.52.0.0/24", "dataDir": "/srv/leases"})
    assert sizes(tree) == []
    found = pools.read(tree.node, Config(data_dir="/srv/leases"))
    assert found.of(holding("k8s-pod-network", ["10.52.0.2"])) == (Pool("ipv4", 253, 1, "10.52.0.1-10.52.0.254"),)


def test_the_first_file_in_the_order_of_their_names_counts(tree: Tree) -> None:
    conflist(tree, {"type": "host-local", "subnet": "10.52.0.0/28"}, file="20-old.conflist")
    conflist(tree, {"type": "host-local", "subnet": "10.52.0.0/24"})
    conflist(tree, {"type": "host-local", "subnet": "10.52.0.0/16"}, file="00-saved.conflist.bak")
    assert sizes(tree) == [("ipv4", 253)]


ODD = [
    "null",
    "[]",
    "7",
    '{"name": 7}',
    '{"name": "k8s-pod-network", "plugins": 7}',
    '{"name": "k8s-pod-network", "plugins": [7, null, {"ipam": []}]}',
    '{"name": "k8s-pod-network", "ipam": {"type": "host-local", "subnet": 7, "ranges": [7, [7, {"subnet": "x"}]]}}',
    '{"name": "k8s-pod-network", "ipam": {"type": "host-local", "subnet": "10.0.0.0/24", "rangeStart": "fd00::1"}}',
    '{"name": "k8s-pod-network", "ipam": {"type": "host-local", "subnet": "10.0.0.0/32"}}',
    '{"name": "k8s-pod-network", "ipam": {"type": "dhcp"}, "delegates": {"a": 1}}',
]


@pytest.mark.parametrize("text", ODD)
def test_what_makes_no_sense_tells_no_pool(tree: Tree, text: str) -> None:
    write(tree, "10-odd.conf", text)
    assert (sizes(tree), pools.read(tree.node, Config()).unread) == ([], ())


BROKEN = {
    "{": "'/etc/cni/net.d/10-odd.conf': not valid JSON",
    "[" * 100_000: "'/etc/cni/net.d/10-odd.conf': not valid JSON",
    " " * (foreign.LIMIT + 1): "'/etc/cni/net.d/10-odd.conf': longer than 1024 KiB",
}


@pytest.mark.parametrize("text", BROKEN, ids=["cut off", "deep", "long"])
def test_what_cannot_be_read_is_told(tree: Tree, text: str) -> None:
    write(tree, "10-odd.conf", text)
    assert pools.read(tree.node, Config()).unread == (BROKEN[text],)


def test_flannels_file_may_be_anything(tree: Tree) -> None:
    flannel(tree, "FLANNEL_SUBNET=what\n\nno line of ours\nFLANNEL_IPV6_SUBNET\n")
    assert pools.read(tree.node, Config()).flannel == ()
    path = Path(tree.root / "run/flannel/subnet.env")
    path.unlink()
    os.mkfifo(path)
    assert pools.read(tree.node, Config()).unread == ("'/run/flannel/subnet.env': not a regular file",)
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("")
    assert pools.read(tree.node, Config()).unread[0].endswith("Not a directory")


@settings(deadline=None)
@given(document=DOCUMENTS, subnet=st.sampled_from(WORDS) | st.text())
def test_a_cni_configuration_tells_pools_or_nothing(lasting_tree: Tree, document: object, subnet: str) -> None:
    write(lasting_tree, "a.conflist", json.dumps(document))
    flannel(lasting_tree, f"FLANNEL_SUBNET={subnet}\nFLANNEL_IPV6_SUBNET={subnet}\n")
    found = pools.read(lasting_tree.node, Config())
    assert found.unread == ()
    for network in (*found.sets, "k8s-pod-network"):
        assert all(pool.size > 0 for pool in found.of(holding(network, ["10.0.0.5", "fd00::1"])))
