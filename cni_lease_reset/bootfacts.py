"""Facts of this boot: the kernel's boot id, and the containers that live."""

import os
from itertools import pairwise
from typing import Final, NamedTuple

from . import durable
from .errors import describe
from .model import BootId
from .node import Node

KUBERNETES: Final = "k8s.io"  # containerd's namespace of Kubernetes' pods
# CRI-O and podman run their containers below conmon: no shim, and no id on its command line to rely on.
_OTHER_ENGINES: Final = (b"conmon", b"conmonrs", b"crio")


class Shim(NamedTuple):
    """A process that holds a sandbox of containerd's, as its command line tells."""

    namespace: str
    sandbox: str | None
    address: str | None  # the socket of its containerd


class Processes(NamedTuple):
    """What a scan of /proc saw of containers."""

    shims: tuple[Shim, ...] = ()
    other_engines: tuple[str, ...] = ()
    unproven: str | None = None  # why seeing nothing proves nothing

    @property
    def pods(self) -> tuple[str, ...]:
        """The ids of Kubernetes' living pod sandboxes."""
        return tuple(shim.sandbox or "?" for shim in self.shims if shim.namespace == KUBERNETES)


def boot_id(node: Node) -> BootId:
    """Return the id of the running kernel's boot. Raises ``OSError`` where /proc does not tell."""
    path = node.path("/proc/sys/kernel/random/boot_id")
    with durable.named(path), open(path, encoding="utf-8") as file:
        return BootId(file.read().strip())


def processes(node: Node) -> Processes:
    """Find the living containers by their shims; they outlive RKE2, and containerd too."""
    proc = node.path("/proc")
    # hidepid= hides other processes from a root without capabilities; PID 1 is there always.
    if node.is_this_machine and not os.path.isdir(f"{proc}/1"):
        return Processes(unproven="the processes of this machine are hidden from us (is /proc mounted with hidepid?)")
    try:
        commands = [_command(proc, pid) for pid in os.listdir(proc) if pid.isdecimal()]
    except OSError as error:
        return Processes(unproven=f"the processes of this machine cannot be listed: {describe(error)}")
    programs = [(os.path.basename(command[0]), command) for command in commands if command]
    shims = tuple(_shim(command) for program, command in programs if program.startswith(b"containerd-shim"))
    return Processes(shims, tuple(program.decode() for program, _ in programs if program in _OTHER_ENGINES))


def _command(proc: str, pid: str) -> list[bytes]:
    path = f"{proc}/{pid}/cmdline"
    try:
        with durable.named(path), open(path, "rb") as file:
            return file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
        return []


def _shim(command: list[bytes]) -> Shim:
    """Read ``containerd-shim-… -namespace k8s.io -id … -address …``."""
    options = {os.fsdecode(option): os.fsdecode(value) for option, value in pairwise(command)}
    return Shim(options.get("-namespace", "?"), options.get("-id"), options.get("-address"))
