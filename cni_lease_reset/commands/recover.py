"""``recover``: the manual remedy made safe, without touching a pod.

Stopping RKE2 does not stop its pods (``KillMode=process``), so deleting all leases would hand out living addresses
twice. Here only the leases go whose container does not live, and no pod can start meanwhile: see :mod:`.transient`.
"""

import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from ..core import events
from ..core.errors import CniLeaseResetError, InputOutputError, RefusedError, describe, printable
from ..core.model import Config, Lease, Reset, Selection, Step
from ..edges import config, durable, leases, setaside
from ..edges import sandboxes as living
from ..edges.journald import Journal
from ..edges.lock import only_one
from ..edges.node import Node
from ..edges.systemd import DOWN, Manager
from .screen import local

_PATIENCE: Final = 30.0  # seconds for containerd to let go
_POLL: Final = 0.2

Say = Callable[[str], None]


class Findings(NamedTuple):
    """What ``recover`` would deal with."""

    units: tuple[str, ...]  # of the runtime, those that are up
    leaked: tuple[tuple[str, tuple[tuple[Lease, float], ...]], ...]  # by network, each with when it was written
    found: int  # all leases of all these networks

    @property
    def cleared(self) -> int:
        """How many leases would be set aside."""
        return sum(len(each) for _, each in self.leaked)


def look(node: Node, manager: Manager) -> Findings:
    """Find the leases that look leaked; changes nothing. Raises :class:`RefusedError` where ``recover`` would."""
    if node.is_this_machine and os.geteuid() != 0:
        raise InputOutputError("recover looks into root's files and processes: run it as root")
    settings = config.read(node).config
    units = _units_up(settings, manager)
    found = _read(node, settings)
    living = _living(node, leases_there=any(each for _, each in found))
    leaked = tuple((name, tuple(each for each in every if each[0].is_leaked(living))) for name, every in found)
    return Findings(units, leaked, sum(len(every) for _, every in found))


def _units_up(settings: Config, manager: Manager) -> tuple[str, ...]:
    if manager.going_down().value:
        raise RefusedError("nothing was changed: the system goes down, and the next boot deals with the leases")
    states = manager.unit_states(settings.runtime_units).value
    if states is None:
        raise RefusedError("nothing was changed: systemd cannot be asked whether a runtime is up")
    return tuple(unit for unit in settings.runtime_units if states.get(unit) not in DOWN)


def _living(node: Node, *, leases_there: bool) -> frozenset[str]:
    """Return the ids of all that lives. Raises :class:`RefusedError` where they are in doubt."""
    seen = living.look(node)
    if seen.doubt is not None:
        raise RefusedError(f"nothing was changed: {seen.doubt}")
    if leases_there and not seen.alive and living.has_network_namespaces(node):
        doubt = "no pod seems to live, and yet /run/netns holds network namespaces"
        raise RefusedError(f"nothing was changed: {doubt}; reboot instead, the next boot deals with the leases")
    return seen.alive


def _read(node: Node, settings: Config) -> tuple[tuple[str, tuple[tuple[Lease, float], ...]], ...]:
    """Read the leases of each configured network. Raises ``OSError``, and :class:`InputOutputError`."""
    found = leases.survey(node, settings)
    for trouble in found.troubles:
        if trouble.again:
            raise InputOutputError(f"nothing was changed: network {printable(trouble.network)}: {trouble.why}")
    if not found.networks:
        return ()
    with durable.directory(settings.data_dir, root=node.root) as data:
        return tuple((network.name, leases.inventory(data, network.name)) for network in found.networks)


def as_text(findings: Findings) -> str:
    """Show the leases that look leaked, and what would happen."""
    kept = findings.found - findings.cleared
    lines = [f"{events.leases(findings.found)}: {findings.cleared} look leaked, {kept} of living pods."]
    for name, leaked in findings.leaked:
        if leaked:
            lines += ["", *_table(name, leaked)]
    if not findings.cleared:
        lines += ["Nothing to recover."]
    elif findings.units:
        units = ", ".join(findings.units)
        lines += [
            "",
            f"recover stops {units} (pods go on running), sets aside",
            f"what is leaked then, and starts {units} again.",
        ]
    else:
        lines += ["", "No runtime unit is up: recover sets aside what is leaked, and starts nothing."]
    return "".join(f"{line}\n" for line in lines)


def _table(name: str, leaked: tuple[tuple[Lease, float], ...]) -> list[str]:
    width = max(15, *(len(lease.address) for lease, _ in leaked))
    rows = [f"{printable(name)}:", f"  {'Address':<{width}}  {'Container':<13}  Since"]
    for lease, since in leaked:
        owner = "(torn)" if lease.torn else printable(str(lease.owner)[:13])
        rows.append(f"  {lease.address:<{width}}  {owner:<13}  {local(since)}")
    return rows


def work(
    node: Node,
    manager: Manager,
    journal: Journal,
    say: Say,
    *,
    stop: Callable[[], None] = lambda: None,
    patience: float = _PATIENCE,
) -> None:
    """Stop the runtime, wait for containerd, and set aside what nobody alive owns; starting again is the caller's.

    Raises :class:`RefusedError` and :class:`BusyError` with nothing changed, :class:`InputOutputError` and ``OSError``.
    """
    try:
        with only_one(node, create=True):
            settings = config.read(node).config
            stop()
            _wait_for_containerd(node, say, patience)
            found, reset = _clear(node, settings, manager, say)
    except (CniLeaseResetError, OSError) as error:
        journal.send(events.not_recovered(describe(error) if isinstance(error, OSError) else str(error)))
        raise
    if reset.name is not None:
        journal.send(events.recovered(reset, found=found))


def _wait_for_containerd(node: Node, say: Say, patience: float) -> None:
    """Wait until no containerd answers: it may still finish a pod whose lease is there and whose shim is not."""
    deadline = time.monotonic() + patience
    if living.answering(node, living.look(node)) is not None:
        say("Waiting until containerd has let go.")
    while (address := living.answering(node, living.look(node))) is not None:
        if time.monotonic() > deadline:
            raise RefusedError(f"nothing was changed: a containerd still answers at {printable(address, quoted=True)}")
        time.sleep(_POLL)


def _clear(node: Node, settings: Config, manager: Manager, say: Say) -> tuple[int, Reset]:
    found = _read(node, settings)
    living = _living(node, leases_there=any(each for _, each in found))
    say(f"Living sandboxes and containers: {len(living)}.")
    steps = tuple(
        Step(name, Selection.LEAKED, "recover", living)
        for name, every in found
        if any(lease.is_leaked(living) for lease, _ in every)
    )
    if not steps:
        say("No lease is leaked.")
        return 0, Reset()
    reset = setaside.set_aside(
        steps,
        node,
        settings,
        node.boot_id(),
        lambda: (_objection(node, settings, manager, living), ()),
        all_or_nothing=True,
    )
    if reset.refusal is not None:
        raise RefusedError(f"nothing was changed: {reset.refusal}")
    for trouble in reset.troubles:
        network = f"network {printable(trouble.network)}: {trouble.why}"
        if reset.name is None:
            raise RefusedError(f"nothing was changed: {network}")
        raise InputOutputError(f"not all was done, see reset {reset.name}: {network}")
    for name, number in reset.cleared:
        say(f"Set aside {events.leases(number)} of {printable(name)} as {reset.name}.")
    return sum(len(every) for _, every in found), reset


def _objection(node: Node, settings: Config, manager: Manager, before: frozenset[str]) -> str | None:
    """Ask again under host-local's locks whether somebody started a runtime or a pod after all."""
    for unit in _units_up(settings, manager):
        return f"{unit} is up"
    seen = living.look(node)
    if not seen.alive <= before:
        return "a sandbox has started meanwhile"
    address = living.answering(node, seen)
    return None if address is None else f"a containerd answers at {printable(address, quoted=True)}"
