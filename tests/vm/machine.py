"""A virtual machine: power on, run commands, lose power. Every wait is for a condition and has a bound."""

import json
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

SECONDS: Final = 600  # for anything to happen: without KVM, perhaps beside other work. Only a hang takes as long


class Image(NamedTuple):
    """A disk to put throw-away overlays on, and what boots it."""

    disk: Path
    disk_format: str
    kernel: Path
    initrd: Path


class Reply(NamedTuple):
    """What a command in the machine came to."""

    status: int
    stdout: str
    stderr: str


class Shell:
    """The line to the lab shell: one JSON object each way."""

    def __init__(self, line: socket.socket) -> None:
        self._socket = line
        self._pending = b""
        self._requests = 0

    def hello(self) -> None:
        """Wait until the shell runs in the machine."""
        next(message for message in self._messages(SECONDS) if "hello" in message)

    def ask(self, command: str, seconds: float) -> Reply:
        """Run a command line and wait for its end."""
        self._requests += 1
        self._socket.sendall(json.dumps({"id": self._requests, "command": command}).encode() + b"\n")
        reply = next(message for message in self._messages(seconds) if message.get("id") == self._requests)
        return Reply(int(str(reply["status"])), str(reply["stdout"]), str(reply["stderr"]))

    def _messages(self, seconds: float) -> Iterator[dict[str, object]]:
        """Yield what arrives; raise TimeoutError when the bound is reached, ConnectionError when QEMU is gone."""
        deadline = time.monotonic() + seconds
        while True:
            while b"\n" in self._pending:
                line, _, self._pending = self._pending.partition(b"\n")
                message: dict[str, object] = json.loads(line)
                yield message
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionError("QEMU closed the line")
            self._pending += chunk

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Machine:
    """QEMU runs from power-on to power-off: its end is the machine's, and killing it is the power cut."""

    def __init__(self, folder: Path, image: Image, *devices: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.boots = folder, 0
        self._image, self._devices = image, devices
        self.disk = folder / "disk.qcow2"
        backing = ("-b", str(image.disk), "-F", image.disk_format)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self.disk)], check=True)
        self._qemu: subprocess.Popen[bytes] | None = None
        self._options: tuple[str, ...] = ()

    def start(self, *options: str) -> None:
        """Power on with words for the kernel's command line, and wait until the lab shell answers."""
        assert self._qemu is None, "it runs already"
        self.boots += 1
        self._options = options
        ours, theirs = socket.socketpair()
        with theirs, open(self.folder / "qemu.log", "ab") as log:
            command = self._command(theirs.fileno(), options)
            self._qemu = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stderr=log, pass_fds=[theirs.fileno()]
            )
        self._shell = Shell(ours)
        self._shell.hello()

    def _command(self, line: int, options: tuple[str, ...]) -> list[str]:
        # The units' names on the console: what a test reads there is what had happened when the power went.
        told = "systemd.show_status=1 systemd.status_unit_format=name"
        # no_timer_check: on a busy host the emulated timer is late, and the kernel would panic over it.
        kernel = f"root=/dev/vda rw console=ttyS0 quiet panic=1 no_timer_check {told} {' '.join(options)}"
        return [
            # However we end, no machine is left behind.
            # An old processor alone is the least work to emulate: half of what "max" with two of them takes.
            *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64,-svm"),
            *("-smp", "1", "-m", "1536", "-nodefaults", "-display", "none", "-no-reboot"),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd), "-append", kernel),
            # writeback: what the guest has not flushed is in nobody's hands but its own, and goes with it.
            *("-drive", f"file={self.disk},if=none,id=root,format=qcow2,cache=writeback"),
            *("-device", "virtio-blk-pci,drive=root"),  # before the others: /dev/vda
            *("-chardev", f"file,id=console,path={self._console}", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=shell,fd={line}"),
            *("-device", "virtio-serial", "-device", "virtserialport,chardev=shell,name=lab"),
            *("-device", "virtio-rng-pci", *self._devices),
        ]

    @property
    def _console(self) -> Path:
        return self.folder / f"console-{self.boots}.log"

    @property
    def console(self) -> str:
        """What this boot has written to its serial console so far."""
        return self._console.read_text(errors="replace")

    def cut(self) -> None:
        """Take the power away. What the kernel had not written yet, and the disk not flushed, is lost."""
        if self._qemu is not None:
            self._qemu.kill()
            self._gone()

    def wait_off(self) -> None:
        """Wait until the machine has switched itself off, or reset itself."""
        assert self._qemu is not None, "it does not run"
        self._qemu.wait(SECONDS)
        self._gone()

    def _gone(self) -> None:
        assert self._qemu is not None
        self._qemu.wait()
        self._qemu = None
        self._shell.close()

    def power_cut(self, *options: str) -> None:
        """Lose power and boot again, with the same words for the kernel unless others are given."""
        self.cut()
        self.start(*(options or self._options))

    def goes_down(self, command: str, *options: str, boot_again: bool = True) -> None:
        """Let a command bring the machine down, and boot again."""
        with suppress(OSError, ValueError):  # its answer may be cut off
            self._shell.ask(f"({command}) </dev/null >/dev/null 2>&1 &", 60)
        self.wait_off()
        if boot_again:
            self.start(*(options or self._options))

    def soft_reboot(self) -> None:
        """Let all of user space end and begin anew under the same kernel."""
        self.run("systemctl --no-block soft-reboot")
        self._shell.hello()  # the shell lives until the last kill

    def try_run(self, command: str, seconds: float = SECONDS) -> Reply:
        """Run a command line of bash."""
        return self._shell.ask(command, seconds)

    def run(self, command: str, seconds: float = SECONDS) -> str:
        """Run a command line that must succeed, and return its stdout."""
        reply = self.try_run(command, seconds)
        assert reply.status == 0, f"{command}: exit {reply.status}: {reply.stderr or reply.stdout}"
        return reply.stdout

    def wait_until(self, condition: str, seconds: int = SECONDS) -> None:
        """Wait until a command succeeds in the machine."""
        loop = f"until {condition}; do sleep 1.5; done"  # asking costs the emulated processor half a second
        reply = self.try_run(f"timeout {seconds} bash -c {shlex.quote(loop)}", seconds + 30)
        assert reply.status == 0, f"waited {seconds} s in vain for: {condition}\n{reply.stderr[-500:]}"

    def write(self, path: str, text: str) -> None:
        """Write a file, durably, so that a power cut does not take it back."""
        self.run(
            f"mkdir -p $(dirname {path}) && printf %s {shlex.quote(text)} >{path} && sync {path} $(dirname {path})"
        )
