"""``recover``: leaked addresses back on a running node, with all pods up; an ADD waits for it as for another plugin."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from ..core import events
from ..core.errors import BusyError, CniLeaseResetError, InputOutputError, RefusedError, describe, printable
from ..core.findings import Lease, Living, MessageId, Network, Remark, Survey, Trouble
from ..core.model import Config
from ..core.outcome import skipped, unlisted
from ..core.plan import is_crowded
from ..edges import config, durable, leases, living, lock, record, setaside, shelf
from ..edges.journald import Journal
from ..edges.node import Node
from .fate import Fate, sort_out
from .screen import local, wrapped

_WITH_NAMES: Final = (Fate.ADDRESS, Fate.NO_PROCESS, Fate.UNTOUCHABLE)
_NAMED: Final = 3  # so many of a kind


class Sight(NamedTuple):
    """One network as it was seen, and what was done."""

    network: str
    fates: Mapping[Lease, Fate] = {}
    living: Living = Living()
    cleared: int = 0
    wrong: CniLeaseResetError | None = None
    remarks: tuple[Remark, ...] = ()  # what was survived

    def of(self, fate: Fate) -> tuple[Lease, ...]:
        """List the leases with one fate."""
        return tuple(lease for lease, its in self.fates.items() if its is fate)


def look(node: Node, *, crowded: bool = False) -> tuple[Sight, ...]:
    """Look at the networks without any lock; changes nothing. Raises ``OSError`` and :class:`InputOutputError`."""
    if node.is_this_machine and os.geteuid() != 0:
        raise InputOutputError("recover looks into root's files and processes: run it as root")
    found = leases.survey(node, settings := config.read(node))
    seen = (_see(node, each) for each in _networks(found, settings, crowded=crowded).values())
    return (*seen, *(Sight(each.name, remarks=(unlisted(each),)) for each in found.unlisted))


def _networks(found: Survey, settings: Config, *, crowded: bool) -> dict[str, Network | Trouble]:
    """Choose the networks that are configured, or those of them that are crowded or cannot be read."""
    fit = {each.name: each for each in found.networks if not crowded or is_crowded(each, settings.max_kept_leases)}
    return {**fit, **{each.network: each for each in found.troubles}}


def _not_done(trouble: Trouble) -> Sight:
    """Tell what is wrong with a network: what will not mend by itself is skipped with a remark, as by ``boot``."""
    if trouble.again:
        kind = BusyError if trouble.why == leases.BUSY else InputOutputError
        return Sight(trouble.network, wrong=kind(trouble.why))
    return Sight(trouble.network, remarks=(skipped(trouble),))


def _see(node: Node, network: Network | Trouble) -> Sight:
    if isinstance(network, Trouble):
        return _not_done(network)
    found = tuple(sorted(network.found, key=lambda lease: (":" in lease.address, leases.packed(lease.address))))
    alive = living.whose(node, found)
    seen = Sight(network.name, sort_out(found, alive, now=time.time(), uptime=node.uptime()), alive)
    if len(seen.of(Fate.UNTOUCHABLE)) == len(found) > 1:
        why = next((f"unreadable, {each.unread}" for each in found if each.unread), "that are none of host-local's")
        return seen._replace(wrong=InputOutputError(f"{len(found)} leases {why}"))
    return seen


def work(node: Node, journal: Journal, say: Callable[[str], None], *, crowded: bool) -> CniLeaseResetError | None:
    """Set aside what is leaked, network by network, and say what was done and what is left.

    Returns what went wrong: a network that was busy, refused or failed does not stop the others. The journal knows all
    of it; of unattended runs (``crowded``) it has one refusal a boot. Raises ``OSError`` where nothing could be begun.
    """
    settings = config.read(node)
    remarks: list[Remark] = []
    onto = shelf.Shelf(node, settings, node.boot_id(), "recover", remarks)
    done = []
    for name in _networks(leases.survey(node, settings), settings, crowded=crowded):
        sight = _recover(node, name, onto)
        done.append(sight)
        remarks += sight.remarks
        if sight.cleared or (sight.wrong is None and not crowded):
            where = f" as {onto.name}" if sight.cleared else ""
            for line in (f"{printable(sight.network)}: {events.leases(sight.cleared)} set aside{where}", *_kept(sight)):
                say(line)
    found, cleared = sum(len(each.fates) for each in done), sum(each.cleared for each in done)
    if cleared:
        text = f"Recovered: {events.leases(cleared)} set aside as {onto.name}, {found - cleared} kept."
        fields = events.of_reset(onto.name, [each.network for each in done if each.cleared], found, cleared)
        journal.send(events.Entry(MessageId.RECOVERED, events.NOTICE, text, fields))
        with suppress(BusyError), lock.only_one(node):  # or whoever is at work prunes
            remarks += shelf.prune(node, settings)
    failure = failed(done)
    if (failure or remarks) and (not crowded or record.first_time(node, "recover-refused")):
        for remark in remarks:
            journal.send(events.of_remark(remark))
        if failure is not None:
            text = f"{'Recovered in part' if cleared else 'Not recovered'}: {str(failure).partition(': ')[2]}"
            journal.send(events.Entry(MessageId.NOT_RECOVERED, events.WARNING, text))
    return failure


def failed(sights: Sequence[Sight]) -> CniLeaseResetError | None:
    """Say what went wrong with all of them; an error weighs more than a refusal."""
    wrong = [(f"network {printable(each.network)}: {each.wrong}", type(each.wrong)) for each in sights if each.wrong]
    kind = max((kind for _, kind in wrong), key=lambda each: each is InputOutputError, default=CniLeaseResetError)
    lead = "not all was done" if any(each.cleared for each in sights) else "nothing was changed"
    return kind(f"{lead}: {'; '.join(text for text, _ in wrong)}") if wrong else None


def _recover(node: Node, name: str, onto: shelf.Shelf) -> Sight:
    """Deal with one network, and return it as it was seen under the lock."""
    data_dir = durable.directory(onto.config.data_dir, root=node.root)
    try:
        with data_dir as data, leases.Hold(node, patience=lock.HOST_LOCAL) as hold:
            network = leases.look(data, name, hold)
            network = hold.failed.get(name, network)
            if isinstance(network, Trouble):
                return _not_done(network)
            with lock.only_one(node, create=True):  # not before: host-local's lock may have been waited for
                seen = _see(node, network)
                seen = seen._replace(remarks=tuple(hold.remarks))
                if seen.living.doubts:
                    return seen._replace(wrong=RefusedError(seen.living.doubts[0]))
                going = [lease.address for lease in seen.of(Fate.LEAKED)]
                moved = setaside.onto_shelf(name, going, hold, onto)
    except BusyError as error:
        return Sight(name, wrong=error)
    except OSError as error:
        return Sight(name, wrong=InputOutputError(describe(error)))
    wrong = seen.wrong if moved.trouble is None else InputOutputError(moved.trouble)
    stuck = dict.fromkeys((each for each in seen.fates if each.address in moved.stuck), Fate.UNTOUCHABLE)
    return seen._replace(fates={**seen.fates, **stuck}, cleared=moved.number, wrong=wrong)


def as_text(sights: tuple[Sight, ...]) -> str:
    """Show what was seen: the leases that look leaked, and how many stay and why."""
    lines: list[str] = []
    for sight in sights:
        its = sight.of(Fate.LEAKED)
        lines += [remark.text for remark in sight.remarks]
        look = sight.wrong or f"{events.leases(len(sight.fates))}, {len(its)} look leaked"
        lines += [] if sight.remarks else [f"{printable(sight.network)}: {look}"]
        lines += _kept(sight)
        width = max([15, *(len(lease.address) for lease in its)])
        lines += [f"  {'Address':<{width}}  {'Container':<13}  Since"] if its else []
        for lease in its:
            owner = "(torn)" if lease.torn else printable(str(lease.owner)[:13])
            lines.append(f"  {lease.address:<{width}}  {owner:<13}  {local(lease.written)}")
        lines.append("")
    return "".join(f"{line}\n" for line in lines)


def _kept(sight: Sight) -> list[str]:
    """Say how many leases stay, by the reason; where it is an address, which, for nobody else would tell."""
    lines = []
    for fate in Fate:
        its = [lease.address for lease in sight.of(fate)]
        if fate is Fate.LEAKED or not its:
            continue
        text = f"  {len(its):>4} kept, {fate}"
        if fate in _WITH_NAMES:
            of = sight.living.addresses
            names = [f"{each} (process {of[each]})" if of.get(each) else each for each in its[:_NAMED]]
            text += f": {', '.join(names)}{', …' if len(its) > _NAMED else ''}"
        lines += wrapped(text, indent=9)
    return lines
