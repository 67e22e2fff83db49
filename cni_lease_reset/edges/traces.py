"""Ids of containers: where they stand in processes, and in the directories of containerd and CRI-O.

No engine is asked, and none is told from another. Anybody can call himself containerd-shim: what a process says counts
only if it is root's, and not inside a container.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

from ..core.errors import printable
from .node import Node
from .sight import Sight

KUBERNETES: Final = "k8s.io"  # containerd's namespace of Kubernetes' pods
_STATES: Final = frozenset({"/run/k3s/containerd", "/run/containerd"})
_TASKS: Final = "io.containerd.runtime.v2.task"
_SHIMS: Final = "io.containerd.sandbox.controller.v1.shim"
_CRIO: Final = "/run/containers/storage/overlay-containers"

_SHORTEST: Final = 12  # what is shorter is no id: it may stand anywhere
_WORD: Final = re.compile(rb"[0-9A-Za-z]{%d,}" % _SHORTEST)
_ROOT: Final = re.compile(rb"^Uid:\t0\t0\t0\t0$", re.MULTILINE)  # all four: a setuid program says what its caller says
_NESTED: Final = re.compile(rb"^NSpid:\t\d+\t", re.MULTILINE)  # a second number: of a PID namespace below this one
_PLUGIN: Final = re.compile(rb"(?:^|\0)CNI_CONTAINERID=([^\0]*)")
_FLAG: Final = re.compile(rb"\0--?(namespace|id|address)[=\0]([^\0]*)")  # as Go's flag package reads them


class Traces(NamedTuple):
    """What was found at one time."""

    text: bytes  # command lines and names, apart
    plugins: frozenset[bytes]  # containers that a CNI plugin works for
    pods: tuple[str, ...]  # what says that a pod of Kubernetes lives, whichever: sentences
    states: frozenset[str]  # where some containerd keeps its state

    def of(self, owners: Collection[str]) -> frozenset[str]:
        """Return the owners that left a trace."""
        words = frozenset(_WORD.findall(self.text))
        return frozenset(owner for owner in owners if self._knows(os.fsencode(owner), words))

    def _knows(self, owner: bytes, words: frozenset[bytes]) -> bool:
        sought = identify(owner)
        return owner in self.plugins or sought in words or (not sought.isalnum() and _stands(sought, self.text))


def identify(owner: bytes) -> bytes:
    """Return the id in a lease's owner, empty where there is none; nerdctl's owners are ``<namespace>-<id>``."""
    last = owner.rpartition(b"-")[2]
    return next((each for each in (last, owner) if len(each) >= _SHORTEST), b"")


def _stands(sought: bytes, text: bytes) -> bool:
    """Whether an id that is no word stands there, and not as a part of a longer one."""
    if not sought or sought not in text:
        return False
    return re.search(rb"(?<![0-9A-Za-z])%b(?![0-9A-Za-z])" % re.escape(sought), text) is not None


def processes(sight: Sight, proc: str) -> list[int]:
    """List the processes that can be seen."""
    return [int(name) for name in sight.names(proc) if name.isdecimal()]


def gather(sight: Sight, node: Node) -> Traces:
    """Read what trusted processes and the directories that they name say."""
    commands, plugins = _said(sight, node.path("/proc"))
    shims = {process: _flags(command) for process, command in commands.items() if _is_shim(command)}
    addresses = [flags[b"address"] for flags in shims.values() if b"address" in flags]
    states = _STATES.union(filter(None, map(_state, addresses)))
    names = [name for state in sorted(states) for name in _kept(sight, node.path(state))]
    names += sight.names(node.path(_CRIO))
    text = b"\0".join((*commands.values(), *map(os.fsencode, names)))
    return Traces(text, plugins, tuple(_pods(shims)), states)


def _said(sight: Sight, proc: str) -> tuple[dict[int, bytes], frozenset[bytes]]:
    """Read the command lines of trusted processes, and ``CNI_CONTAINERID`` in their environments."""
    commands: dict[int, bytes] = {}
    plugins: set[bytes] = set()
    for process in processes(sight, proc):
        if not _is_trusted(sight.read(f"{proc}/{process}/status")):  # before what it says, or it may have changed sides
            continue
        commands[process] = sight.read(f"{proc}/{process}/cmdline")
        if not sight.caged:
            environment = sight.read(f"{proc}/{process}/environ", advice=" (run as root, with CAP_SYS_PTRACE)")
            plugins.update(_PLUGIN.findall(environment) if b"CNI_CONTAINERID=" in environment else ())
    return commands, frozenset(plugins)


def _is_trusted(status: bytes) -> bool:
    return _ROOT.search(status) is not None and _NESTED.search(status) is None


def _is_shim(command: bytes) -> bool:
    return b"containerd-shim" in os.path.basename(command.partition(b"\0")[0])


def _flags(command: bytes) -> Mapping[bytes, bytes]:
    return dict(_FLAG.findall(command))


def _state(address: bytes) -> str | None:
    """Return the directory of a containerd's socket, if it is a place where only root makes one."""
    path = os.path.normpath(os.fsdecode(address.removeprefix(b"unix://")))
    return os.path.dirname(path) if path.startswith("/run/") else None


def _kept(sight: Sight, state: str) -> Iterator[str]:
    """Name the sandboxes and tasks in a containerd's state, and the sandboxes of the tasks."""
    for kind in (_TASKS, _SHIMS):
        for namespace in sight.names(f"{state}/{kind}"):
            for name in sight.names(f"{state}/{kind}/{namespace}"):
                yield name
                if kind == _TASKS:
                    yield os.fsdecode(sight.read(f"{state}/{kind}/{namespace}/{name}/sandbox"))


def _pods(shims: Mapping[int, Mapping[bytes, bytes]]) -> Iterator[str]:
    """Say which shims may be a pod's: those of Kubernetes, and those that do not tell."""
    for process, flags in shims.items():
        if flags.get(b"namespace", b"") in (b"", KUBERNETES.encode()):
            sandbox = printable(os.fsdecode(flags.get(b"id", b"?")[:13]))
            yield f"pod sandbox {sandbox} lives (process {process})"
