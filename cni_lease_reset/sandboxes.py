"""Which pod sandboxes live, told without asking any engine: by their shims and by what containerd keeps under /run."""

import errno
import os
import socket
from typing import Final, NamedTuple

from . import bootfacts
from .bootfacts import Processes
from .node import Node

# Where RKE2, K3s and a distribution's own containerd keep their state; other places are known from the shims.
_STATES: Final = ("/run/k3s/containerd", "/run/containerd")
_RKE2: Final = "/run/k3s/containerd/containerd.sock"


class Sandboxes(NamedTuple):
    """The ids of what lives, and what makes them doubtful."""

    alive: frozenset[str]  # of every namespace, of sandboxes and of the containers in them
    addresses: tuple[str, ...]  # sockets of the containerds that may be at work
    doubt: str | None = None  # why an id that is not among them may live all the same


def look(node: Node) -> Sandboxes:
    """Find all living sandboxes; alive is what a shim names and what has a task directory."""
    seen = bootfacts.processes(node)
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
