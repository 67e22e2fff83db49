"""A virtual node: boots, runs commands, loses power. Every wait is for a condition and has a bound."""

import json
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LEASES: Final = "/var/lib/cni/networks/k8s-pod-network"
BOOT_SECONDS: Final = 180  # without KVM, beside another busy machine
PODS_SECONDS: Final = 240


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Lease:
    """Inode and ctime say more than presence: a lease deleted and handed out again has the same name."""

    address: str
    inode: int
    ctime: str
    size: int
    content: str


class Line:
    """A connection on which each line is a JSON object: QMP and the lab shell both speak so."""

    def __init__(self, path: Path, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:  # QEMU makes the socket a moment after it was started
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(str(path))
                return
            except OSError:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise

    def send(self, message: dict[str, object]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def messages(self, timeout: float) -> Iterator[dict[str, Any]]:
        """Yield what arrives; raise TimeoutError when the bound is reached, ConnectionError when QEMU is gone."""
        deadline = time.monotonic() + timeout
        pending = b""
        while True:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionError("QEMU closed the line")
            *lines, pending = (pending + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines if line.strip())

    def close(self) -> None:
        self._socket.close()


class Node:
    def __init__(self, folder: Path, image: Path) -> None:
        self.folder, self.boots, self._requests = folder, 0, 0
        self._image, self._disk = image, folder / "disk.qcow2"
        backing = ["-b", str(image / "disk.img"), "-F", "raw"]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self._disk)], check=True)

    def start(self) -> None:
        """Power on and wait until the lab shell answers."""
        for name in ("qmp", "shell"):
            (self.folder / name).unlink(missing_ok=True)
        self._qemu = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL)
        self._qmp = Line(self.folder / "qmp", timeout=20)
        self._qmp.send({"execute": "qmp_capabilities"})
        self._shell = Line(self.folder / "shell", timeout=20)
        self.wait_for_boot()

    def _command(self) -> list[str]:
        return [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536"),
            *("-nodefaults", "-display", "none", "-kernel", str(self._image / "vmlinuz")),
            *("-initrd", str(self._image / "initrd"), "-append", "root=/dev/vda rw console=ttyS0 panic=1"),
            *("-drive", f"file={self._disk},if=virtio,format=qcow2,cache=writeback"),
            *(
                "-chardev",
                f"file,id=console,path={self.folder / 'console.log'},append=on",
                "-serial",
                "chardev:console",
            ),
            *("-chardev", f"socket,id=shell,path={self.folder / 'shell'},server=on,wait=off"),
            *("-device", "virtio-serial", "-device", "virtserialport,chardev=shell,name=lab"),
            *("-qmp", f"unix:{self.folder / 'qmp'},server=on,wait=off", "-device", "virtio-rng-pci"),
        ]

    def wait_for_boot(self) -> None:
        next(message for message in self._shell.messages(BOOT_SECONDS) if "hello" in message)
        self.boots += 1

    def power_cut(self) -> None:
        """Reset the machine as it stands: what the kernel has not written yet is lost. Then wait for the next boot."""
        self._shell.close()  # half an answer may be under way
        self._qmp.send({"execute": "system_reset"})
        next(message for message in self._qmp.messages(20) if message.get("event") == "RESET")
        self._shell = Line(self.folder / "shell", timeout=20)
        self.wait_for_boot()

    def try_run(self, command: str, timeout: float = 60) -> Reply:
        self._requests += 1
        self._shell.send({"id": self._requests, "command": command})
        answers = self._shell.messages(timeout)
        reply = next(message for message in answers if message.get("id") == self._requests)
        return Reply(reply["status"], reply["stdout"], reply["stderr"])

    def run(self, command: str, timeout: float = 60) -> str:
        reply = self.try_run(command, timeout)
        assert reply.status == 0, f"{command}: exit {reply.status}: {reply.stderr or reply.stdout}"
        return reply.stdout

    def wait_until(self, condition: str, seconds: int) -> None:
        """Wait until a shell command succeeds in the machine."""
        loop = f"until {condition}; do sleep 0.2; done"
        self.run(f"timeout {seconds} bash -c {shlex.quote(loop)}", timeout=seconds + 30)

    def pods(self) -> dict[str, Any]:
        """What came of starting the pods at this boot: alive, started, errors (with host-local's own words)."""
        self.wait_until("test -e /run/rke2-stand-in.json", PODS_SECONDS)
        outcome: dict[str, Any] = json.loads(self.run("cat /run/rke2-stand-in.json"))
        return outcome

    def leases(self, folder: str = LEASES) -> tuple[Lease, ...]:
        listing = self.run(
            f"cd {folder} 2>/dev/null || exit 0; for f in [0-9]*; do [ -f $f ] || continue;"
            " stat -c '%n %i %z %s' $f | tr '\\n' '|'; tr -d '\\r\\0' <$f | tr '\\n' ' '; echo; done"
        )
        return tuple(_lease(line) for line in listing.splitlines())

    def journal(self, match: str) -> list[dict[str, Any]]:
        """The entries of this boot that journalctl selects."""
        return [json.loads(line) for line in self.run(f"journalctl -b -o json --no-pager {match}").splitlines()]

    def stop(self) -> None:
        self._qemu.kill()
        self._qemu.wait()

    @property
    def console(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")


def _lease(line: str) -> Lease:
    facts, content = line.split("|", 1)
    address, inode, rest = facts.split(" ", 2)
    ctime, size = rest.rsplit(" ", 1)
    return Lease(address=address, inode=int(inode), ctime=ctime, size=int(size), content=content.strip())


@contextmanager
def running(node: Node) -> Iterator[Node]:
    """Power on for a `with` block; whatever went wrong, the journal is kept and the machine is gone afterwards."""
    try:
        node.start()
        yield node
    finally:
        with suppress(OSError, AssertionError):  # a machine that hangs has no journal to give, but a console log
            (node.folder / "journal.txt").write_text(node.run("journalctl --no-pager -o short-monotonic", timeout=60))
        node.stop()
