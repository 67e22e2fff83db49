"""Facts of this boot: the kernel's boot id, and the pods that live."""

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from .model import BootId
from .node import Node


class Pods(NamedTuple):
    """What a scan of /proc saw."""

    sandboxes: tuple[str, ...] = ()  # ids of living pod sandboxes
    unproven: str | None = None  # why finding none proves nothing


def boot_id(node: Node) -> BootId:
    """Return the id of the running kernel's boot. Raises ``OSError`` where /proc does not tell."""
    with open(node.path("/proc/sys/kernel/random/boot_id"), encoding="ascii") as file:
        return BootId(file.read().strip())


def living_pods(node: Node) -> Pods:
    """Find the living pods of Kubernetes by their containerd shims; they outlive RKE2, and containerd too."""
    proc = node.path("/proc")
    # hidepid= hides other processes from a root without capabilities; PID 1 is there always.
    if node.is_this_machine and not os.path.isdir(f"{proc}/1"):
        return Pods(unproven="the processes of this machine are hidden from us (is /proc mounted with hidepid?)")
    try:
        commands = [_command(proc, pid) for pid in os.listdir(proc) if pid.isdecimal()]
    except OSError as error:
        return Pods(unproven=f"the processes of this machine cannot be listed: {error.strerror}")
    return Pods(tuple(sandbox for command in commands for sandbox in _sandbox(command)))


def _command(proc: str, pid: str) -> list[bytes]:
    try:
        with open(f"{proc}/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
        return []


def _sandbox(command: list[bytes]) -> Iterator[str]:
    """Yield the sandbox id of a shim of Kubernetes: ``containerd-shim-… -namespace k8s.io -id …``."""
    if not command or not os.path.basename(command[0]).startswith(b"containerd-shim"):
        return
    options = dict(pairwise(command))
    if options.get(b"-namespace") == b"k8s.io":
        yield os.fsdecode(options.get(b"-id", b"?"))
