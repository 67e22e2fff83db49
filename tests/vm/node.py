"""A virtual node: a machine with pods, leases, and the product."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import verdicts
from machine import Image, Machine
from summary import Row
from verdicts import Verdict

NETWORKS: Final = "/var/lib/cni/networks"
LEASES: Final = f"{NETWORKS}/k8s-pod-network"
STATE: Final = "/var/lib/cni/cni-lease-reset"
CONFIG: Final = "/etc/cni-lease-reset/config.yaml"
UNIT: Final = "cni-lease-reset.service"
PATIENCE: Final = f"/etc/systemd/system/{UNIT}.d/emulated.conf"
PATIENT: Final = "[Service]\nTimeoutStartSec=10min\nTimeoutStopSec=10min\n"
RKE2: Final = "rke2-server.service"
WITHOUT_US: Final = f"systemd.mask={UNIT}"
# Installing or updating, release 1 or 2.
DEB: Final = "DEBIAN_FRONTEND=noninteractive apt-get -q -y install /opt/packages/release-{}.deb </dev/null"
RPM: Final = "rpm -U --nodeps /opt/packages/release-{}.rpm"  # its database knows nothing of Debian's own packages

# On a slow machine the kernel would write the leases out while the pods still start; off, what is torn is certain.
NO_WRITEBACK: Final = "sysctl.vm.dirty_writeback_centisecs=0"


class Pods(NamedTuple):
    """What came of starting the pods: sandbox ids, and host-local's own words."""

    alive: tuple[str, ...]  # from before
    started: tuple[str, ...]
    errors: tuple[str, ...]
    stopped: tuple[str, ...] = ()  # the sandboxes of earlier boots that got their DEL
    not_stopped: tuple[str, ...] = ()


class File(NamedTuple):
    """Inode and ctime say more than presence: a lease deleted and handed out again has the same name."""

    path: str  # below the folder asked for
    inode: int
    size: int
    ctime: str

    @property
    def name(self) -> str:
        """The address, for a lease."""
        return self.path.rsplit("/", 1)[-1]


class Node(Machine):
    """What the tests ask of a node."""

    def __init__(self, folder: Path, image: Image, *devices: str, rows: list[Row]) -> None:
        super().__init__(folder, image, *devices)
        self._rows, self._seen, self._figures = rows, list[Verdict](), list[str]()

    @contextmanager
    def scenario(self, name: str) -> Iterator[None]:
        """Make a row of the summary of what happens in a ``with`` block."""
        print(f"-- {name}", file=sys.stderr, flush=True)  # workers have no stdout
        boots, seen, figures, result = self.boots, len(self._seen), len(self._figures), "FAILED"
        try:
            yield
            result = "ok"
        finally:
            row = Row(name, self.boots - boots, tuple(self._seen[seen:]), result, tuple(self._figures[figures:]))
            self._rows.append(row)

    def figure(self, text: str) -> None:
        """Keep what was measured beside the scenario's row."""
        print(f"   {text}", file=sys.stderr, flush=True)
        self._figures.append(text)

    # -- pods and leases ------------------------------------------------------------------------------------------

    def pods(self) -> Pods:
        """Wait until the stand-in has started its pods at this boot (or failed to), and RKE2 is up."""
        self.wait_until(f"test -e /run/rke2-stand-in.json && systemctl -q is-active {RKE2}")
        outcome: dict[str, list[str]] = json.loads(self.run("cat /run/rke2-stand-in.json"))
        return Pods(**{name: tuple(values) for name, values in outcome.items()})

    def files(self, folder: str) -> tuple[File, ...]:
        """The files below a folder, nothing where it does not exist."""
        found = self.try_run(f"find {folder} -type f -printf '%P\\t%i\\t%s\\t%C@\\n'").stdout
        return _files(found)

    def leases(self, folder: str = LEASES) -> tuple[File, ...]:
        """The leases of a network."""
        return tuple(file for file in self.files(folder) if _is_address(file.name))

    def before(self) -> tuple[File, ...]:
        """What lay under /var/lib/cni when this boot began, before anybody touched it."""
        return _files(self.run("cat /run/lab/before"))

    def commit_names(self) -> None:
        """Make the leases' names durable, not what is in them.

        ext4 commits names every 5 s and contents later still, so a cut in between leaves zero bytes. This makes sure.
        """
        self.run(f"sync {LEASES}")

    def pod_addresses(self) -> tuple[str, ...]:
        """The addresses that the living pods have, as their own network namespaces say; IPv4."""
        each = "ip -n $(basename $ns) -o -4 address show eth0"
        found = self.run(f"for ns in /run/netns/cni-*; do {each}; done")
        addresses = tuple(re.findall(r"inet ([\d.]+)/", found))
        assert addresses, "no pod has an address"
        return addresses

    def ping(self, address: str, namespace: str = "") -> bool:
        """Whether a pod answers, from the node or from another pod's network namespace."""
        inside = f"ip netns exec {namespace} " if namespace else ""
        return self.try_run(f"{inside}ping -q -c 1 -W 10 {address}").status == 0

    @contextmanager
    def untouched_leases(self) -> Iterator[None]:
        """No lease changes in a ``with`` block, not even inode or ctime, and every pod still answers."""
        before, pods = self.leases(), self.pod_addresses()
        assert set(pods) <= {lease.name for lease in before}
        yield
        assert self.leases() == before
        assert self.pod_addresses() == pods
        assert all(self.ping(address) for address in pods)

    # -- the product ----------------------------------------------------------------------------------------------

    def said(self) -> str:
        """What was said of our unit at this boot, in full: a message is cut at 100 characters, its reason is not."""
        fields = "--output-fields=MESSAGE,CNI_REASON"
        return self.run(f"journalctl --sync; journalctl -b -o cat {fields} --no-pager -u {UNIT}")

    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict entries of this boot, oldest first."""
        self.run("journalctl --sync")
        lines = self.run(f"journalctl -b -o json --no-pager -u {UNIT}").splitlines()
        return verdicts.parse([json.loads(line) for line in lines])

    def verdict(self) -> Verdict:
        """The one verdict entry of this boot, once the unit has done its work."""
        self.settled()
        (only,) = self.verdicts()
        self._seen.append(only)
        return only

    def verdict_again(self) -> Verdict:
        """The newest verdict entry, where the unit ran more than once at this boot."""
        *_, newest = self.verdicts()
        self._seen.append(newest)
        return newest

    def settled(self) -> None:
        """Wait until the unit has run at this boot, whatever came of it."""
        self.wait_until(f"[[ $(systemctl show -P ActiveState {UNIT}) =~ ^(active|failed)$ ]]")

    def marker(self) -> dict[str, str]:
        """What the marker says, nothing where there is none."""
        lines = self.try_run(f"cat {STATE}/marker").stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run(f"systemctl show -P {name} {unit}").strip()

    def moment(self, unit: str, name: str) -> float:
        """A monotonic time stamp of a unit, in seconds since the kernel began."""
        return int(self.show(unit, f"{name}TimestampMonotonic")) / 1e6

    def nothing_lost(self) -> None:
        """Every lease that this boot found is where it was or set aside: renaming keeps the inode."""
        leases = {(file.inode, file.name) for file in self.before() if _is_lease(file)}
        now = {(file.inode, file.name) for file in self.files("/var/lib/cni")}
        assert leases <= now, f"lost: {sorted(leases - now)}"


def _files(listing: str) -> tuple[File, ...]:
    rows = [line.split("\t") for line in listing.splitlines()]
    return tuple(sorted(File(path, int(inode), int(size), ctime) for path, inode, size, ctime in rows))


def _is_lease(file: File) -> bool:
    return file.path.startswith("networks/") and _is_address(file.name)


def _is_address(name: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+){3}|[0-9a-f:]*:[0-9a-f:]*", name) is not None
