"""Ids of containers: where they stand in processes, and in the directories of containerd and CRI-O.

No engine is asked, and none is told from another. Anybody can call himself containerd-shim: what a process says counts
only if it is root's, and not inside a container.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from ..core.errors import printable
from .node import Node
from .sight import Sight

_STATES: Final = frozenset({"/run/k3s/containerd", "/run/containerd"})
_TASKS: Final = "io.containerd.runtime.v2.task"
_SHIMS: Final = "io.containerd.sandbox.controller.v1.shim"
_CRIO: Final = "/run/containers/storage/overlay-containers"

_SHORTEST: Final = 12  # what is shorter is no id: it may stand anywhere
_WORD: Final = re.compile(rb"[0-9A-Za-z]{%d,}" % _SHORTEST)
_PLUGIN: Final = rb"(?:^|\0)CNI_CONTAINERID=([^\0]*)"
_FLAG: Final = rb"\0--?(namespace|id|address)[=\0]([^\0]*)"  # as Go's flag package reads them


class Traces(NamedTuple):
    """What was found at one time."""

    text: bytes  # command lines and names, apart
    words: frozenset[bytes]  # of the text, each long enough for an id
    plugins: frozenset[bytes]  # containers that a CNI plugin works for
    pods: tuple[str, ...]  # what says that a pod of Kubernetes lives, whichever: sentences
    states: frozenset[str]  # where some containerd keeps its state

    def know(self, owners: Iterable[str]) -> set[str]:
        """Tell which of these owners left one; there may be thousands, of which most are plain ids."""
        marks = self.words | self.plugins
        return {
            owner
            for owner in owners
            if (key := owner.encode("utf-8", "surrogateescape")) in marks
            or (not owner.isalnum() and self._stands_apart(key))
        }

    def _stands_apart(self, owner: bytes) -> bool:
        last = owner.rpartition(b"-")[2]  # nerdctl's owners are <namespace>-<id>
        sought = last if len(last) >= _SHORTEST else owner
        if sought in self.words:
            return True
        if len(sought) < _SHORTEST or sought not in self.text:
            return False
        return re.search(rb"(?<![0-9A-Za-z])%b(?![0-9A-Za-z])" % re.escape(sought), self.text) is not None


def processes(sight: Sight, proc: str) -> list[int]:
    """List the processes that can be seen."""
    return [int(name) for name in sight.names(proc) if name.isdecimal()]


def gather(sight: Sight, node: Node) -> Traces:
    """Read what trusted processes and the directories that they name say."""
    commands, plugins = _said(sight, node.path("/proc"))
    states, pods = _shims(commands)
    names = [name for state in sorted(states) for name in _kept(sight, node.path(state))]
    names += sight.names(node.path(_CRIO))
    text = b"\0".join((*commands.values(), *map(os.fsencode, names)))
    return Traces(text, frozenset(_WORD.findall(text)), plugins, tuple(pods), frozenset(states))


def _said(sight: Sight, proc: str) -> tuple[dict[int, bytes], frozenset[bytes]]:
    """Read the command lines of trusted processes, and ``CNI_CONTAINERID`` in their environments."""
    commands: dict[int, bytes] = {}
    plugins: set[bytes] = set()
    for process in processes(sight, proc):
        status = sight.read(f"{proc}/{process}/status")  # before what it says, or it may have changed sides
        # All four ids, for a setuid program says what its caller says; a second number is of a PID namespace below.
        if b"\nUid:\t0\t0\t0\t0\n" not in status or b"\t" in status.partition(b"\nNSpid:\t")[2].partition(b"\n")[0]:
            continue
        commands[process] = sight.read(f"{proc}/{process}/cmdline")
        if not sight.caged:
            environment = sight.read(f"{proc}/{process}/environ", advice=" (run as root, with CAP_SYS_PTRACE)")
            plugins.update(re.findall(_PLUGIN, environment) if b"CNI_CONTAINERID=" in environment else ())
    return commands, frozenset(plugins)


def _shims(commands: Mapping[int, bytes]) -> tuple[set[str], list[str]]:
    """Return where the containerds of shims keep their state, and say which shims may be a pod's."""
    states, pods = set(_STATES), []
    for process, command in commands.items():
        if b"containerd-shim" not in os.path.basename(command.partition(b"\0")[0]):
            continue
        flags = dict(re.findall(_FLAG, command))
        socket = os.path.normpath(os.fsdecode(flags.get(b"address", b"").removeprefix(b"unix://")))
        if socket.startswith("/run/"):  # where only root makes one
            states.add(os.path.dirname(socket))
        if flags.get(b"namespace", b"") in (b"", b"k8s.io"):  # it does not tell, or is Kubernetes
            sandbox = printable(os.fsdecode(flags.get(b"id", b"?")[:13]))
            pods.append(f"pod sandbox {sandbox} lives (process {process})")
    return states, pods


def _kept(sight: Sight, state: str) -> Iterator[str]:
    """Name the sandboxes and tasks in a containerd's state, and the sandboxes of the tasks."""
    for kind in (_TASKS, _SHIMS):
        for namespace in sight.names(f"{state}/{kind}"):
            for name in sight.names(f"{state}/{kind}/{namespace}"):
                yield name
                if kind == _TASKS:
                    yield os.fsdecode(sight.read(f"{state}/{kind}/{namespace}/{name}/sandbox"))
