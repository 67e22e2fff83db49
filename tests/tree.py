"""A node in a directory, and the real host-local plugin on it. The demo needs no more, and so no pytest."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from cni_lease_reset.core.model import BootId
from cni_lease_reset.edges.node import Node

THIS = BootId("11111111-1111-4111-8111-111111111111")
OTHER = BootId("22222222-2222-4222-8222-222222222222")
SANDBOX = "ab" * 32
PLUGIN = next(p for p in ("/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin") if os.access(f"{p}/host-local", os.X_OK))

_AN_HOUR_AGO = time.time_ns() - 3600 * 1_000_000_000


class Tree:
    """A node below a temporary directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.node = Node(str(root))
        self.state = root / "var/lib/cni/cni-lease-reset"
        self.data = root / "var/lib/cni/networks"
        self.network = self.data / "k8s-pod-network"
        self.next_kernel(THIS)

    def next_kernel(self, boot_id: BootId) -> None:
        """What a new kernel brings: its boot id, and an empty /run."""
        (self.root / "proc/sys/kernel/random").mkdir(parents=True, exist_ok=True)
        (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{boot_id}\n")
        (self.root / "proc/uptime").write_text("86400.00 86400.00\n")
        (self.root / "run/cni-lease-reset/boot").unlink(missing_ok=True)

    def mark(self, state: str, boot_id: str = OTHER) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "marker").write_text(f"state={state}\nboot_id={boot_id}\nsince=2026-11-23T06:12:01Z\n")

    def put(self, path: str, text: str) -> None:
        """Write a file anywhere below the root."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(text.encode("utf-8", "surrogatepass"))

    def lease(self, address: str, content: str = f"{SANDBOX}\r\neth0", network: str = "k8s-pod-network") -> Path:
        (self.data / network).mkdir(parents=True, exist_ok=True)
        path = self.data / network / address
        path.write_text(content)
        os.utime(path, ns=(_AN_HOUR_AGO, _AN_HOUR_AGO))
        return path

    def leases(self, network: str = "k8s-pod-network") -> set[str]:
        return {path.name for path in (self.data / network).iterdir() if path.name[0].isdigit() or ":" in path.name}

    def set_aside(self) -> set[str]:
        return {path.name for path in (self.state / "set-aside").rglob("*") if path.is_file() and path.name != "reason"}

    def config(self, text: str) -> None:
        path = self.root / "etc/cni-lease-reset/config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)

    def shim(self, namespace: str = "k8s.io", pid: int = 4711, sandbox: str = SANDBOX) -> None:
        """A pod, or a container of another engine; root's, as each is."""
        path = self.root / f"proc/{pid}"
        path.mkdir(parents=True)
        command = ("/var/lib/rancher/bin/containerd-shim-runc-v2", "-namespace", namespace, "-id", sandbox, "")
        (path / "cmdline").write_text("\0".join(command))
        (path / "status").write_text(f"Name:\tx\nUid:\t0\t0\t0\t0\nNSpid:\t{pid}\n")

    def age(self, network: str = "k8s-pod-network") -> None:
        """Let a network's leases be an hour old: no longer young for recover."""
        for address in self.leases(network):
            os.utime(self.data / network / address, ns=(_AN_HOUR_AGO, _AN_HOUR_AGO))

    def marker(self) -> str:
        """What the marker says; nothing where there is none."""
        path = self.state / "marker"
        return path.read_text() if path.exists() else ""


class HostLocal:
    """The real plugin on a tree's data directory."""

    def __init__(self, tree: Tree, subnets: Sequence[str] = ("10.52.0.0/24",)) -> None:
        self.ipam = {"type": "host-local", "dataDir": str(tree.data), "ranges": [[{"subnet": s}] for s in subnets]}

    def run(self, command: str, container: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": "/var/run/netns/none",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": PLUGIN,
        }
        network = json.dumps({"cniVersion": "0.3.1", "name": "k8s-pod-network", "type": "x", "ipam": self.ipam})
        command_line = [f"{PLUGIN}/host-local"]
        return subprocess.run(command_line, input=network, env=environment, text=True, capture_output=True, check=False)

    def add(self, container: str) -> str:
        """Allocate, and return the first address without its prefix length."""
        done = self.run("ADD", container)
        if done.returncode != 0:
            raise RuntimeError(json.loads(done.stdout)["msg"])
        return str(json.loads(done.stdout)["ips"][0]["address"]).partition("/")[0]

    def delete(self, container: str) -> None:
        assert self.run("DEL", container).returncode == 0

    def exhaust(self) -> int:
        number = 0
        while True:
            try:
                self.add(f"old{number}")
            except RuntimeError as error:
                assert "no IP addresses available in range set: 10.52.0.1-10.52.0.254" in str(error)
                return number
            number += 1
