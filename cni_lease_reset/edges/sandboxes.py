"""Which pod sandboxes live, told without asking any engine: by their shims and by what containerd keeps under /run."""

import errno
import os
import socket
from itertools import pairwise
from typing import Final, NamedTuple

from ..core.errors import describe
from . import durable
from .node import Node

# Where RKE2, K3s and a distribution's own containerd keep their state; other places are known from the shims.
_STATES: Final = ("/run/k3s/containerd", "/run/containerd")
_RKE2: Final = "/run/k3s/containerd/containerd.sock"
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


class Sandboxes(NamedTuple):
    """The ids of what lives, and what makes them doubtful."""

    alive: frozenset[str]  # of every namespace, of sandboxes and of the containers in them
    addresses: tuple[str, ...]  # sockets of the containerds that may be at work
    doubt: str | None = None  # why an id that is not among them may live all the same


def look(node: Node) -> Sandboxes:
    """Find all living sandboxes; alive is what a shim names and what has a task directory."""
    seen = processes(node)
    named = {shim.address.removeprefix("unix://") for shim in seen.shims if shim.address}
    states = {*_STATES, *(os.path.dirname(address) for address in named)}
    alive = {shim.sandbox for shim in seen.shims if shim.sandbox}
    for state in states:
        alive |= _tasks(node.path(state))
    return Sandboxes(frozenset(alive), tuple(sorted({_RKE2, *named})), _doubt(seen))


def _doubt(seen: Processes) -> str | None:
    if seen.unproven is not None:
        return seen.unproven
    if seen.other_engines:
        return f"{seen.other_engines[0]} is at work: the containers of CRI-O and podman are not known from here"
    if any(not shim.sandbox for shim in seen.shims):
        return "a containerd-shim does not say whose it is (no -id)"
    return None


def _tasks(state: str) -> set[str]:
    """Read the names below ``<state>/io.containerd.runtime.v2.task/<namespace>/``."""
    above = f"{state}/io.containerd.runtime.v2.task"
    return {task for namespace in _names(above) for task in _names(f"{above}/{namespace}")}


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def answering(node: Node, sandboxes: Sandboxes) -> str | None:
    """Name a containerd that answers: it may still finish a pod whose lease is there and whose shim is not."""
    return next((address for address in sandboxes.addresses if _answers(node.path(address))), None)


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)  # a full backlog says EAGAIN: somebody is there
        try:
            connection.connect(address)
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)
    return True


def has_network_namespaces(node: Node) -> bool:
    """Whether network namespaces of pods are there."""
    return any(name.startswith("cni-") for name in _names(node.path("/run/netns")))
