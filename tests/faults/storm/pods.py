"""Pods as a container runtime makes them: a network namespace, a process in it or none, and the real plugins."""

import json
import os
import shutil
import subprocess
from enum import Enum, auto
from pathlib import Path
from secrets import token_hex
from typing import Final, NamedTuple
from uuid import uuid4

PLUGINS: Final = f"{Path(__file__).with_name('plugins')}:/usr/lib/cni:/usr/libexec/cni:/opt/cni/bin"
LEASES: Final = Path("/var/lib/cni/networks")
LIVING: Final = Path("/run/storm/living")  # by network and address: the id of the pod that has it now
HARM: Final = Path("/run/storm/harm")  # what must not happen, a line each
GAPS: Final = 10  # lengths of the time between lease and address: 0.1 to 1 second
FULL: Final = "no IP addresses available in range set"

_HASTE: Final = "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad"  # no wait for a doubled IPv6 address
_STAYS: Final = "echo ready; read _"
_NO_IPV6: Final = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6"


class Network(NamedTuple):
    """One of the machine's networks."""

    name: str
    plugin: str
    subnets: tuple[str, ...]

    @property
    def leases(self) -> Path:
        """host-local's directory."""
        return LEASES / self.name

    @property
    def living(self) -> Path:
        """Who has which address now."""
        return LIVING / self.name


BRIDGE: Final = Network("k8s-pod-network", "bridge", ("10.52.0.0/24",))
PTP: Final = Network("cbr0", "ptp", ("10.53.0.0/25", "fd00:53::/121"))
SANDBOXED: Final = Network("sandboxed", "slow-host-local", ("10.54.0.0/26",))  # the kernel never has its addresses
NETWORKS: Final = (BRIDGE, PTP, SANDBOXED)


class Kind(Enum):
    """What shows that a pod lives once its ADD has ended."""

    MOUNTED = auto()  # its address, in a namespace that is mounted and has no process
    INHABITED = auto()  # the same, with a process in it
    UNMOUNTED = auto()  # its address, in a namespace that only its process holds, as Docker's
    NO_IPV6 = auto()  # its other address: IPv6 was switched off in it
    SHIM = auto()  # the id in the command line of one of root's processes


MIX: Final = (
    (BRIDGE, Kind.MOUNTED),
    (PTP, Kind.MOUNTED),
    (SANDBOXED, Kind.SHIM),
    (BRIDGE, Kind.UNMOUNTED),
    (PTP, Kind.NO_IPV6),
    (BRIDGE, Kind.INHABITED),
    (PTP, Kind.INHABITED),
)


class Pod:
    """One pod; its methods in the order in which they are called, each by the same thread."""

    def __init__(self, serial: int) -> None:
        self.serial = serial
        self.network, self.kind = MIX[serial % len(MIX)]
        self.id = token_hex(32)
        self.addresses: tuple[str, ...] = ()
        self._mounted = Path(f"/run/netns/cni-{uuid4()}")
        self._process: subprocess.Popen[str] | None = None
        self._namespace = str(self._mounted)

    def create(self) -> None:
        """Make the network namespace, and start the process if there is to be one."""
        if self.kind is Kind.UNMOUNTED:
            self._process = _started("unshare", "--net", "sh", "-c", f"{_HASTE}; {_STAYS}")
            self._namespace = f"/proc/{self._process.pid}/ns/net"
            return
        self._mounted.touch()
        within = ("unshare", f"--net={self._mounted}", "sh", "-c")
        if self.kind is Kind.INHABITED:
            self._process = _started(*within, f"{_HASTE}; {_STAYS}")
        else:
            subprocess.run((*within, _HASTE), check=True)
        if self.kind is Kind.SHIM:
            self._process = _started("sh", "-c", _STAYS, "vmm", "--api-socket", f"/run/vmm/{self.id}/api.sock")

    def add(self, *, young: bool) -> bool:
        """Add it to its network; whether an address was free."""
        done = self._plugin("ADD", young=young)
        said = json.loads(done.stdout) if done.stdout else {}
        if done.returncode == 0:
            self.addresses = tuple(each["address"].partition("/")[0] for each in said["ips"])
            if self.kind is Kind.NO_IPV6:
                subprocess.run(("nsenter", f"--net={self._mounted}", "sh", "-c", _NO_IPV6), check=True)
            return True
        if FULL not in said.get("msg", ""):
            raise RuntimeError(f"ADD, {self}: {done.stdout}{done.stderr}")
        self.delete()  # as a runtime does, for the plugin may have left half of its work
        return False

    def check(self) -> None:
        """Look after its leases: none that is lost ever comes back, so looking once, at the end, sees all harm."""
        for address in self.addresses:
            owner = owner_of(self.network.leases / address)
            if owner != self.id:
                tell(f"{self} has lost {address}, which {owner[:12] or 'nobody'} has now")

    def begin_to_end(self) -> None:
        """From here on it has no right to its addresses."""
        for address in self.addresses:
            (self.network.living / address).unlink()

    def delete(self) -> None:
        """Delete it from its network."""
        done = self._plugin("DEL")
        if done.returncode != 0:
            raise RuntimeError(f"DEL, {self}: {done.stdout}{done.stderr}")

    def vanish(self) -> None:
        """Take the process and the namespace away."""
        if self._process is not None:
            self._process.communicate()
        if self._mounted.exists():
            # As runtimes do: whoever is just looking into it keeps it busy.
            subprocess.run(("umount", "--lazy", self._mounted), check=True)
            self._mounted.unlink()

    def __str__(self) -> str:
        return f"pod {self.serial} ({self.kind.name.lower()}, {self.network.name}, {self.id[:12]})"

    def _plugin(self, command: str, *, young: bool = False) -> subprocess.CompletedProcess[str]:
        ranges = [[{"subnet": subnet}] for subnet in self.network.subnets]
        ipam = {"type": "slow-host-local", "ranges": ranges}
        network = {"cniVersion": "0.3.1", "name": self.network.name, "type": self.network.plugin, "ipam": ipam}
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.id,
            "CNI_NETNS": self._namespace,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": PLUGINS,
            "STORM_HOST_LOCAL": shutil.which("host-local", path=PLUGINS) or "",
            "STORM_LIVING": str(self.network.living),
            "STORM_LEASES": str(self.network.leases),
            "STORM_HARM": str(HARM),
            "STORM_YOUNG": "yes" if young else "",
            "STORM_GAP": f"{0.1 * (1 + self.serial % GAPS):.1f}",
        }
        plugin = shutil.which(self.network.plugin, path=PLUGINS) or ""
        return subprocess.run(
            (plugin,), input=json.dumps(network), env=environment, text=True, capture_output=True, check=False
        )


def _started(*command: str) -> subprocess.Popen[str]:
    """Start a process that says that it is ready and stays until its standard input is closed."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def owner_of(lease: Path) -> str:
    """Return the id in a lease; nobody's, where there is none."""
    try:
        return lease.read_text().partition("\n")[0]
    except FileNotFoundError:
        return ""


def tell(harm: str) -> None:
    """Say what must not have happened."""
    with HARM.open("a") as file:
        file.write(f"{harm}\n")
