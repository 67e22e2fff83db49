"""How many addresses a network has to give: what the CNI configurations and flannel say.

Source: containernetworking/plugins, ``plugins/ipam/host-local/backend/allocator``; flannel's ``subnet.env``.
"""

import ipaddress
import json
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ..core.errors import describe, printable
from ..core.findings import Network
from ..core.model import Config
from ..edges.node import Node
from . import foreign
from .foreign import get

CONFIGURATIONS: Final = "/etc/cni/net.d"
FLANNEL: Final = "/run/flannel/subnet.env"
_POD_CIDR: Final = "usePodCidr"  # Calico's word for "the subnet of this node", usePodCidrIPv6 too


class RangeSet(NamedTuple):
    """Addresses of one family, of which host-local gives one to each pod."""

    name: str  # as host-local says it when none is left
    version: int  # 4 or 6
    size: int  # without the gateways, which it never gives
    spans: tuple[tuple[int, int], ...]  # the first and the last of each range

    def holds(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        """Whether an address lies in it."""
        return address.version == self.version and any(first <= int(address) <= last for first, last in self.spans)


class Pool(NamedTuple):
    """One range set of a network: how many addresses it has to give, and how many are taken."""

    family: str  # "ipv4" or "ipv6"
    size: int
    leases: int
    range_set: str


class Pools(NamedTuple):
    """What the node's configurations tell; ``unread`` says what could not be read of them."""

    sets: Mapping[str, tuple[RangeSet, ...]]  # by network
    flannel: tuple[RangeSet, ...]
    unread: tuple[str, ...]

    def of(self, network: Network) -> tuple[Pool, ...]:
        """Tell the pools of a network, none where nothing tells of them; leases in none of them are counted in none."""
        leased = [ipaddress.ip_address(lease.address) for lease in network.found]
        sets = self.sets.get(network.name, ())
        if not sets and any(each.holds(one) for each in self.flannel for one in leased):
            sets = self.flannel  # K3s keeps its CNI configuration elsewhere; a lease tells that it is flannel's
        pools = (Pool(f"ipv{each.version}", each.size, sum(map(each.holds, leased)), each.name) for each in sets)
        return tuple({pool.range_set: pool for pool in pools}.values())


def read(node: Node, config: Config) -> Pools:
    """Read what tells the pools of the networks below the configured data directory."""
    unread: list[str] = []
    flannel = _flannel(node, unread)
    sets: dict[str, tuple[RangeSet, ...]] = {}
    for name in foreign.listing(node, CONFIGURATIONS, ".conflist", ".conf", ".json"):
        path = f"{CONFIGURATIONS}/{name}"
        try:
            # As Go does, which does not mind the case of keys: they are all in small letters from here on.
            content = foreign.text(node, path)
            document = json.loads(content, object_pairs_hook=lambda its: {k.lower(): v for k, v in its})
        except OSError as error:
            unread.append(describe(error))
        except (ValueError, RecursionError):
            unread.append(f"{printable(path, quoted=True)}: not valid JSON")
        else:
            for network in (document, *get(document, "delegates", list)):  # those that Multus delegates to, too
                plugins = get(network, "plugins", list) or [network]
                found = tuple(each for plugin in plugins for each in _sets(plugin, config.data_dir, flannel))
                if found:
                    sets.setdefault(get(network, "name", str), found)
    return Pools(sets, flannel, tuple(unread))


def _flannel(node: Node, unread: list[str]) -> tuple[RangeSet, ...]:
    lines: list[str] = []
    try:
        lines = foreign.text(node, FLANNEL).splitlines()
    except OSError as error:
        unread += [] if isinstance(error, FileNotFoundError) else [describe(error)]
    values = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    subnets = (values.get(key) for key in ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"))
    return tuple(each for subnet in subnets for each in _range({"subnet": subnet}))


def _sets(plugin: object, data_dir: str, flannel: tuple[RangeSet, ...]) -> Iterator[RangeSet]:
    """Yield a plugin's range sets; ranges that make no sense to us are left out, for host-local tells of them."""
    if get(plugin, "type", str) == "flannel":
        yield from flannel  # it calls host-local itself, with its own subnet
    ipam = get(plugin, "ipam", dict)
    if get(ipam, "type", str) != "host-local" or (get(ipam, "datadir", str) or Config().data_dir) != data_dir:
        return
    for entries in ([ipam], *get(ipam, "ranges", list)):
        found = [each for entry in (entries if isinstance(entries, list) else ()) for each in _range(entry, flannel)]
        if found:
            spans = tuple(span for each in found for span in each.spans)
            name, size = ",".join(each.name for each in found), sum(each.size for each in found)
            yield RangeSet(name, found[0].version, size, spans)


def _range(entry: object, flannel: tuple[RangeSet, ...] = ()) -> tuple[RangeSet, ...]:
    """Read one range with host-local's defaults: the gateway is the first address, the broadcast is never given."""
    text = get(entry, "subnet", str)
    if text.startswith(_POD_CIDR):
        version = 6 if text.endswith("IPv6") else 4
        return tuple(each for each in flannel if each.version == version)
    try:
        subnet = ipaddress.ip_network(text, strict=False)
        make = type(subnet.network_address)
        low, high = subnet.network_address + 1, subnet.broadcast_address - (subnet.version == 4)
        first, last = int(make(get(entry, "rangestart", str) or low)), int(make(get(entry, "rangeend", str) or high))
        gateway = int(make(get(entry, "gateway", str) or low))
    except ValueError:
        return ()
    size = last - first + 1 - (first <= gateway <= last)
    return (RangeSet(f"{make(first)}-{make(last)}", subnet.version, size, ((first, last),)),) if size > 0 else ()
