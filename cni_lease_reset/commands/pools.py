"""How many addresses a network has to give: what the CNI configurations and flannel say.

Source: containernetworking/plugins, ``plugins/ipam/host-local/backend/allocator``; flannel's ``subnet.env``.
"""

import ipaddress
import json
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ..core.errors import describe, printable
from ..core.model import Config
from ..edges.node import Node
from . import foreign
from .foreign import get

CONFIGURATIONS: Final = "/etc/cni/net.d"
FLANNEL: Final = "/run/flannel/subnet.env"
_FLANNEL_KEYS: Final = ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET")
_POD_CIDR: Final = "usePodCidr"  # Calico's word for "the subnet of this node", usePodCidrIPv6 too


class Range(NamedTuple):
    """Addresses that host-local gives from."""

    version: int  # 4 or 6
    first: int
    last: int
    size: int  # without the gateway, which it never gives

    def holds(self, address: str) -> bool:
        """Whether an address lies in it."""
        each = ipaddress.ip_address(address)
        return each.version == self.version and self.first <= int(each) <= self.last


class Pool(NamedTuple):
    """All the addresses of one family that a network can give, and how many are taken."""

    family: str  # "ipv4" or "ipv6"
    size: int
    leases: int


class Pools(NamedTuple):
    """What the node's configurations tell; ``unread`` says what could not be read of them."""

    ranges: dict[str, tuple[Range, ...]]  # by network
    flannel: tuple[Range, ...]
    unread: tuple[str, ...]

    def of(self, network: str, addresses: Iterable[str]) -> tuple[Pool, ...]:
        """Tell the pools of a network, given the addresses it has leased; none where nothing tells."""
        leased = list(addresses)
        ranges = self.ranges.get(network, ())
        if not ranges and leased and all(any(each.holds(one) for each in self.flannel) for one in leased):
            ranges = self.flannel  # K3s keeps its CNI configuration elsewhere; the leases tell that it is flannel's
        found = []
        for version in (4, 6):
            size = sum(each.size for each in ranges if each.version == version)
            if size:
                found.append(Pool(f"ipv{version}", size, sum((":" in one) is (version == 6) for one in leased)))
        return tuple(found)


def read(node: Node, config: Config) -> Pools:
    """Read what tells the pools of the networks below the configured data directory."""
    unread: list[str] = []
    flannel = _flannel(node, unread)
    ranges: dict[str, tuple[Range, ...]] = {}
    for name in foreign.listing(node, CONFIGURATIONS, ".conflist", ".conf", ".json"):
        path = f"{CONFIGURATIONS}/{name}"
        try:
            document = json.loads(foreign.text(node, path))
        except OSError as error:
            unread.append(describe(error))
        except (ValueError, RecursionError):
            unread.append(f"{printable(path, quoted=True)}: not valid JSON")
        else:
            for network in (document, *get(document, "delegates", list)):  # those that Multus delegates to, too
                plugins = get(network, "plugins", list) or [network]
                found = tuple(each for plugin in plugins for each in _ranges(plugin, config.data_dir, flannel))
                if found:
                    ranges.setdefault(get(network, "name", str), found)
    return Pools(ranges, flannel, tuple(unread))


def _flannel(node: Node, unread: list[str]) -> tuple[Range, ...]:
    try:
        lines = foreign.text(node, FLANNEL).splitlines()
    except FileNotFoundError:
        return ()
    except OSError as error:
        unread.append(describe(error))
        return ()
    values = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    return tuple(each for key in _FLANNEL_KEYS for each in _range({"subnet": values.get(key)}))


def _ranges(plugin: object, data_dir: str, flannel: tuple[Range, ...]) -> Iterator[Range]:
    """Yield the ranges of one plugin; those that make no sense to us are left out, for host-local tells of them."""
    if get(plugin, "type", str) == "flannel":
        yield from flannel  # it calls host-local itself, with its own subnet
    ipam = get(plugin, "ipam", dict)
    if get(ipam, "type", str) != "host-local" or (get(ipam, "dataDir", str) or Config().data_dir) != data_dir:
        return
    sets = [each for each in get(ipam, "ranges", list) if isinstance(each, list)]
    for entry in (ipam, *(entry for each in sets for entry in each)):
        subnet = get(entry, "subnet", str)
        if subnet.startswith(_POD_CIDR):
            version = 6 if subnet.endswith("IPv6") else 4
            yield from (each for each in flannel if each.version == version)
        else:
            yield from _range(entry)


def _range(entry: object) -> tuple[Range, ...]:
    """Read one range with host-local's defaults: the gateway is the first address, the broadcast is never given."""
    try:
        subnet = ipaddress.ip_network(get(entry, "subnet", str), strict=False)
        low, high = int(subnet.network_address) + 1, int(subnet.broadcast_address) - (subnet.version == 4)
        make = type(subnet.network_address)
        first = int(make(get(entry, "rangeStart", str) or low))
        last = int(make(get(entry, "rangeEnd", str) or high))
        gateway = int(make(get(entry, "gateway", str) or low))
    except ValueError:
        return ()
    size = last - first + 1 - (first <= gateway <= last)
    return (Range(subnet.version, first, last, size),) if size > 0 else ()
