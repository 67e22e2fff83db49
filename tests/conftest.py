"""A node tree in a temporary directory, the real host-local plugin, and what more than one file of tests needs."""

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest

from cni_lease_reset import service
from cni_lease_reset.core.model import BootId, Entry, Outcome
from cni_lease_reset.edges.journald import Journal
from cni_lease_reset.edges.node import Node
from cni_lease_reset.edges.systemd import Answer, Runtime, Unit

# A loaded machine is no fault of ours.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

TOP = Path(__file__).parent.parent
GOLDEN = TOP / "tests/golden"

THIS = BootId("11111111-1111-4111-8111-111111111111")
OTHER = BootId("22222222-2222-4222-8222-222222222222")
NEXT = BootId("33333333-3333-4333-8333-333333333333")
SANDBOX = "ab" * 32
K3S = "run/k3s/containerd/containerd.sock"
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
        os.utime(path, ns=(_AN_HOUR_AGO, _AN_HOUR_AGO))  # no longer young for recover
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

    def shim(self, namespace: str = "k8s.io", pid: int = 4711) -> None:
        path = self.root / f"proc/{pid}"
        path.mkdir(parents=True)
        command = ("/var/lib/rancher/bin/containerd-shim-runc-v2", "-namespace", namespace, "-id", SANDBOX, "")
        (path / "cmdline").write_text("\0".join(command))
        (path / "status").write_text("Uid:\t0\t0\t0\t0\nNSpid:\t4711\n")

    def marker(self) -> str:
        return (self.state / "marker").read_text()


class Systemd:
    """A systemd that answers as told; the real one has no place below a directory."""

    def __init__(
        self,
        states: dict[str, str] | None = None,
        *,
        down: bool | None = True,
        remark: str | None = None,
        ran: Sequence[str] = (),
        starting: bool = True,
    ) -> None:
        self.states, self.down, self.remark = {} if states is None else states, down, remark
        self.ran, self.starting = ran, starting

    def runtime(self, units: Sequence[str]) -> Answer[Runtime]:
        if self.down is None:
            return Answer(None, self.remark)
        found = (Unit(self.states.get(unit, "inactive"), exists=True, has_run=unit in self.ran) for unit in units)
        return Answer(Runtime(tuple(found), starting=self.starting), self.remark)

    def going_down(self) -> Answer[bool]:
        return Answer(self.down, self.remark)


class Kept(Journal):
    """A journal that keeps its entries."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def send(self, entry: Entry) -> None:
        self.entries.append(entry)

    @property
    def verdicts(self) -> list[dict[str, str]]:
        return [dict(entry.fields) for entry in self.entries if "CNI_VERDICT" in dict(entry.fields)]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture(scope="module")
def lasting_tree() -> Iterator[Tree]:
    """A tree for all the examples of hypothesis."""
    with TemporaryDirectory() as directory:
        yield Tree(Path(directory))


@pytest.fixture
def journal() -> Kept:
    return Kept()


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


@pytest.fixture
def host_local(tree: Tree) -> HostLocal:
    return HostLocal(tree)


def sandbox(number: int) -> str:
    return f"{number:064x}"


def live(tree: Tree, number: int, namespace: str = "k8s.io") -> None:
    path = tree.root / f"proc/{1000 + number}/cmdline"
    path.parent.mkdir(parents=True)
    shim = ("/usr/bin/containerd-shim-runc-v2", "-namespace", namespace, "-id", sandbox(number), "-address", f"/{K3S}")
    path.write_text("\0".join((*shim, "")))


@pytest.fixture
def pods(tree: Tree) -> HostLocal:
    """A pool in which 20 leases leaked and 8 pods live, one of them only by its task directory."""
    plugin = HostLocal(tree)
    for number in range(28):
        plugin.add(sandbox(number))
    for number in range(20, 27):
        live(tree, number)
    (tree.root / "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io" / sandbox(27)).mkdir(parents=True)
    return plugin


@pytest.fixture
def reset(tree: Tree) -> str:
    """What a boot after a power cut set aside."""
    tree.mark("running", OTHER)
    for number in range(2, 7):
        tree.lease(f"10.52.0.{number}")
    tree.lease("fd00::2", network="cbr0")
    service.boot(tree.node, Systemd(), Kept())
    assert not tree.leases()
    return next((tree.state / "set-aside").iterdir()).name


def held_lock(tree: Tree, network: str = "k8s-pod-network") -> None:
    lock = os.open(tree.data / network / "lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)


def failing(name: str, monkeypatch: pytest.MonkeyPatch, when: Callable[[tuple[object, ...]], bool], code: int) -> None:
    """Let one call of ``os`` fail as a full or broken disk would, where the condition holds."""
    real = getattr(os, name)

    def call(*arguments: object, **options: object) -> object:
        if when(arguments):
            raise OSError(code, os.strerror(code), str(arguments[0]))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)


def boot(tree: Tree, journal: Kept, manager: Systemd | None = None) -> Outcome:
    before = len(journal.verdicts)
    outcome = service.boot(tree.node, manager or Systemd(), journal)
    assert len(journal.verdicts) == before + 1, "each run leaves exactly one verdict entry"
    assert "CNI_VERDICT" in dict(journal.entries[-1].fields), "and it is the last of ours"
    assert len(journal.entries[-1].message) <= 100
    return outcome
