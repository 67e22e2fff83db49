"""The guard of ``boot``: may leases be set aside now? Asked under host-local's locks, units before processes.

In the other order a pod started between the two questions would be missed.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

from ..core.errors import printable
from ..core.model import UNIT, About, Config, Lease, Living, Remark, Ruling
from . import living
from .node import Node
from .systemd import DOWN, Manager, Unit


def rule(node: Node, config: Config, manager: Manager, due: Mapping[str, tuple[Lease, ...]]) -> Ruling:
    """Refuse if anything says that a pod may live: of these leases, or any at all. A doubt is enough.

    But where systemd itself is still starting, and knows the runtime and that it never ran, a doubt is a remark.
    """
    answer = manager.runtime(config.runtime_units)
    remarks = () if answer.remark is None else (_without_dbus(answer.remark, known=answer.value is not None),)
    units = () if answer.value is None else answer.value.units
    if units and not any(unit.exists for unit in units):
        remarks += (Remark(About.NO_RUNTIME, _NO_RUNTIME.format(", ".join(config.runtime_units))),)
    refusal = _of_units(config.runtime_units, units)
    if refusal is None and living.answers(node):
        refusal = f"a containerd answers at '{living.CONTAINERD}', pods may live{_ORDER.format('its unit')}"
    if refusal is not None:
        return Ruling(refusal, remarks=remarks)
    leases = tuple(chain.from_iterable(due.values()))
    owners = {lease.owner for lease in leases if lease.owner is not None}
    found = living.ask(node, owners, {lease.address for lease in leases}, caged=True)
    certain = answer.value is not None and answer.value.starting and any(unit.exists for unit in units)
    doubts = tuple(Remark(About.IGNORED, f"{doubt}; nothing has run yet, ignoring") for doubt in found.doubts)
    if certain:
        return Ruling(_of_pods(found), remarks=(*remarks, *doubts))
    return Ruling(_of_pods(found) or next(iter(found.doubts), None), remarks=remarks)


_ORDER = "; if it is so at each boot, order {} after " + UNIT
_NO_RUNTIME = "None of the runtime_units is on this node ({}): if its runtime has another name, set it."


def _of_units(names: Sequence[str], units: Sequence[Unit]) -> str | None:
    for name, unit in zip(names, units, strict=False):
        if unit.state not in DOWN or unit.has_run:
            what = f"is {unit.state}" if unit.state not in DOWN else "has been up since this kernel started"
            return f"{name} {what}, pods may live"
    return None


def _of_pods(found: Living) -> str | None:
    """Say whose pod lives, one for all."""
    if found.pods:
        others = f" (and {len(found.pods) - 1} more)" if len(found.pods) > 1 else ""
        return f"{found.pods[0]}{others}"
    for address, process in found.addresses.items():
        whose = "a network namespace" if process is None else f"the network namespace of process {process}"
        return f"the address {address} of a lease is set in {whose}"
    for owner in found.owners:
        return f"container {printable(owner[:13])}, the owner of a lease, lives"
    return None


def _without_dbus(remark: str, *, known: bool) -> Remark:
    return Remark(About.WITHOUT_DBUS, remark if known else f"{remark}; relying on the look at processes alone")
