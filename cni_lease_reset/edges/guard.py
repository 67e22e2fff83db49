"""The guard: may leases be set aside now? Asked under host-local's locks; units before processes.

In the other order a pod started between the two questions would be missed.
"""

from ..core.errors import printable
from ..core.model import About, Config, Remark
from . import sandboxes as living
from .node import Node
from .systemd import DOWN, Manager


def objection(node: Node, config: Config, manager: Manager) -> tuple[str | None, tuple[Remark, ...]]:
    """Say what stands against setting leases aside, ``None`` if nothing does; and what was survived in asking."""
    answer = manager.unit_states(config.runtime_units)
    remarks = () if answer.remark is None else (_without_dbus(answer.remark, known=answer.value is not None),)
    if answer.value is not None:
        for unit in config.runtime_units:
            state = answer.value.get(unit, "in an unknown state")
            if state not in DOWN:
                return f"{unit} is {state}, pods may live", remarks
    seen = living.processes(node)
    if seen.unproven is not None:
        return seen.unproven, remarks
    if seen.pods:
        others = f" and {len(seen.pods) - 1} more" if len(seen.pods) > 1 else ""
        return f"pod sandbox {printable(seen.pods[0][:13])}{others} alive", remarks
    return None, remarks


def _without_dbus(remark: str, *, known: bool) -> Remark:
    return Remark(About.WITHOUT_DBUS, remark if known else f"{remark}; relying on the scan for living pods alone")
