"""A node of the lab with real pods: containerd, runc, bridge and host-local of Debian forky, as a kubelet drives them."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final, NamedTuple

from conftest import TOP

from cni_lease_reset.core.findings import Lease, Living
from cni_lease_reset.edges import living
from cni_lease_reset.edges.node import Node as Seen

from .node import HERE, LEASES, OVERRIDE, RKE2, UNIT, Node, install

SUITE: Final = ("forky", "containerd,runc,containernetworking-plugins,python3-grpcio")  # containerd 2, as in RKE2
RUNTIME: Final = "k3s-node.service"
TASKS: Final = "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io"
_LAB: Final = "usr/lib/lab"
_WAITS: Final = "containerd-shim-waits-v1"
_CTR: Final = "ctr --address /run/k3s/containerd/containerd.sock --namespace k8s.io"
_AN_HOUR: Final = 3600
# A pod's only process. It needs no library and no file, as Kubernetes' own pause image does not.
_PAUSE: Final = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"


def install_containerd(layer: Path, image: str) -> None:
    """Put the product and containerd into a layer above the image; of two stand-ins for a runtime just one may run."""
    install(layer, image)
    for name, place in (
        (RUNTIME, f"usr/lib/systemd/system/{RUNTIME}"),
        ("10-pods.conflist", "etc/cni/net.d/10-pods.conflist"),
        (_WAITS, f"usr/bin/{_WAITS}"),
        *((name, f"{_LAB}/{name}") for name in ("containerd.toml", "container.json", "runc", "cri")),
    ):
        (layer / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "stand-in" / name, layer / place)
    for unit in (RKE2, "containerd.service"):
        (layer / f"etc/systemd/system/{unit}").symlink_to("/dev/null")
    pause = layer / _LAB / "container/pause"
    pause.parent.mkdir()
    subprocess.run(["cc", "-static", "-Os", "-s", "-x", "c", "-o", pause, "-"], input=_PAUSE, text=True, check=True)
    archive = layer / _LAB / "pause.tar"
    subprocess.run([TOP / "tests/vm/guest/make-pause-image", pause, archive], check=True)


class Pod(NamedTuple):
    """A sandbox, and its processes as they are called on its node."""

    sandbox: str
    address: str
    shim: int
    pause: int

    @property
    def lease(self) -> Lease:
        return Lease(self.address, self.sandbox, torn=False)


class PodNode(Node):
    """What the tests ask of a node with pods. Our unit is masked until it is to run."""

    @property
    def seen(self) -> Seen:
        """The node as our program sees it."""
        return Seen(str(self.root))

    def start(self) -> None:
        super().start()
        self.write("run/lab/uptime", "86400.00 86400.00\n")  # soon after a boot recover takes nothing
        self.run("mount --bind /run/lab/uptime /proc/uptime")

    def import_pause(self) -> None:
        self.run(f"{_CTR} images import --local --snapshotter native /{_LAB}/pause.tar")

    def pod(self, name: str) -> Pod:
        """Start a pod; its lease is an hour old at once."""
        sandbox = self.cri("RunPodSandbox", name)
        (address,) = (lease.address for lease in self.old_leases() if lease.owner == sandbox)
        (shim,) = (path.parent.name for path in (self.root / "proc").glob("[0-9]*/cmdline") if _is_shim(path, sandbox))
        pause = (self.root / TASKS / sandbox / "init.pid").read_text()
        return Pod(sandbox, address, int(shim), int(pause))

    def waiting_pod(self, name: str) -> Lease:
        """Let a pod be started by a shim that takes its time, and return its lease."""
        self.run(f"mkfifo /run/lab/shim-waits; /{_LAB}/cri RunPodSandbox {name} waits >/run/lab/{name} 2>&1 &")
        self.run("timeout 60 cat /run/lab/shim-waits")
        (lease,) = self.old_leases()
        return lease

    def container(self, pod: Pod, name: str) -> int:
        """Start a container in a pod, and return its process."""
        self.run(f"{_CTR} run --detach --config /{_LAB}/container.json --sandbox {pod.sandbox} {name}")
        return int((self.root / TASKS / name / "init.pid").read_text())

    def cri(self, call: str, argument: str) -> str:
        return self.run(f"/{_LAB}/cri {call} {argument}").strip()

    def kill(self, process: int) -> None:
        """Kill a process, and wait until it is gone."""
        self.run(f"kill -9 {process}; timeout 60 tail --pid={process} --sleep-interval=0.01 --follow /dev/null")

    def old_leases(self) -> tuple[Lease, ...]:
        """Let all leases be an hour old, and return them."""
        found = tuple((self.root / LEASES).glob("10.*"))
        an_hour_ago = time.time() - _AN_HOUR
        for path in found:
            os.utime(path, (an_hour_ago, an_hour_ago))
        return tuple(Lease(path.name, path.read_text().splitlines()[0], torn=False) for path in found)

    def whose(self, lease: Lease, *, caged: bool = False) -> Living:
        """Who lives, by our program."""
        return living.whose(self.seen, (lease,), caged=caged)

    def status(self) -> tuple[int, int]:
        """How many leases live, and how many leaked, by our status."""
        (network,) = json.loads(self.run("cni-lease-reset status --json"))["networks"]
        return network["live"], network["leaked"]

    def boot(self) -> dict[str, str]:
        """Let our unit run, as at the first boot under a kernel, and return its verdict."""
        self.run(f"rm --force /{OVERRIDE}; systemctl daemon-reload; systemctl start {UNIT}")
        (told,) = self.verdicts()
        return told


def _is_shim(path: Path, sandbox: str) -> bool:
    try:
        command = path.read_text()
    except OSError:  # it has just ended
        return False
    return command.startswith("/usr/bin/containerd-shim") and sandbox in command
