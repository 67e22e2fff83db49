"""The guard of ``boot``: may leases be set aside now? Asked under host-local's locks, units before processes.

In the other order a pod started between the two questions would be missed.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from ..core.errors import printable
from ..core.findings import Lease, Living, MessageId, Remark
from ..core.model import UNIT, Config
from . import living
from .node import Node
from .systemd import DOWN, Manager, Runtime

_ORDER: Final = f"; if so at each boot: systemctl edit {UNIT}, [Unit] Before="
_NO_RUNTIME: Final = "No unit of runtime_units is on this node ({}); if its runtime has another name, add that"


def refusal(node: Node, config: Config, manager: Manager, remarks: list[Remark], due: list[Lease]) -> str | None:
    """Say why none may go: anything that says that a pod may live, of these leases or at all; a doubt is enough.

    But where systemd is still starting, and knows a unit of the runtime and that none ever ran, a doubt is a remark.
    """
    runtime, mute = manager.runtime(config.runtime_units)
    if mute is not None:
        text = mute if runtime else f"{mute}; relying on the look at processes alone"
        remarks.append(Remark(MessageId.WITHOUT_DBUS, text))
    is_known = runtime is not None and any(unit.exists for unit in runtime.units)
    if runtime is not None and not is_known:
        remarks.append(Remark(MessageId.NO_RUNTIME, _NO_RUNTIME.format(", ".join(config.runtime_units))))
    why = None if runtime is None else _of_units(config.runtime_units, runtime)
    if why is None and living.answers(node):
        unit = "its unit (and add it to runtime_units)"
        why = f"a containerd answers at '{living.CONTAINERD}', pods may live{_ORDER}{unit}"
    if why is not None:
        return why
    found = living.whose(node, due, caged=True)
    said = list(_of_pods(found))
    if not said and runtime is not None and is_known and runtime.starting:
        doubts = (f"{doubt}; the runtime never ran, ignoring" for doubt in found.doubts)
        remarks += (Remark(MessageId.IGNORED, doubt) for doubt in doubts)
        return None
    return next(iter((*said, *found.doubts)), None)


def _of_units(names: Sequence[str], runtime: Runtime) -> str | None:
    for name, unit in zip(names, runtime.units, strict=True):
        if unit.state not in DOWN or unit.has_run:
            what = "has been up since this kernel started" if unit.state in DOWN else f"is {unit.state}"
            hint = "" if name in Config().runtime_units else f"{_ORDER}{name}"  # those our unit is before
            return f"{name} {what}, pods may live{hint}"
    return None


def _of_pods(found: Living) -> Iterator[str]:
    """Say who lives."""
    if found.pods:
        others = f" (and {len(found.pods) - 1} more)" if len(found.pods) > 1 else ""
        yield f"{found.pods[0]}{others}"
    for address, process in found.addresses.items():
        whose = "mounted network namespace" if process is None else f"network namespace of process {process}"
        yield f"{address} is set in a {whose}, the pod of its lease lives"
    for owner in found.owners:
        yield f"container {printable(owner[:13])} lives, the owner of a lease"
