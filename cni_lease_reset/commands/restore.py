"""``restore``: the way back from a reset. RKE2 may be up: under host-local's lock a lease comes back where none is."""

import os
from contextlib import ExitStack

from ..core import events
from ..core.errors import BusyError, InputOutputError, RefusedError, UsageError, describe, printable
from ..core.findings import MessageId, Moved, Remark
from ..core.model import Config
from ..core.outcome import of_stuck
from ..edges import config, durable, leases, lock, setaside, shelf
from ..edges.journald import Journal
from ..edges.node import Node, set_aside_directory


def restore(node: Node, journal: Journal, reset: str) -> str:
    """Put a reset's leases back, and say what was done.

    Raises :class:`UsageError` where there is no such reset, :class:`RefusedError` where it is of another ``data_dir``;
    :class:`BusyError` and :class:`InputOutputError` say how many are back where not all could be.
    """
    settings = config.read(node)
    known = shelf.listing(node, settings)
    if reset not in known:
        near = [each for each in known if each.partition("-")[0] == reset.partition("-")[0]]
        hint = f", did you mean '{near[0]}'?" if near else "; cni-lease-reset status lists them"
        raise UsageError(f"there is no reset {printable(reset, quoted=True)}{hint}")
    failed, remarks = list[OSError](), list[Remark]()
    with lock.only_one(node), durable.directory(set_aside_directory(settings.data_dir), root=node.root) as above:
        with durable.opened(above, reset) as folder:
            its = shelf.origin(folder)[1]
            if its not in ("", settings.data_dir):
                now = f"{printable(its, quoted=True)}, and data_dir is '{settings.data_dir}' now; set it back for this"
                raise RefusedError(f"nothing was changed: the leases of reset {reset} are of {now}")
            done = {printable(name): _put_back(folder, name, node, settings, remarks) for name in shelf.folders(folder)}
        if not any(each.taken or each.stuck or each.trouble for each in done.values()):
            shelf.discard(above, reset, failed)
    back, taken = sum(each.number for each in done.values()), sum(each.taken for each in done.values())
    for name, each in done.items():
        remarks += of_stuck(name, each.stuck)
    for remark in (*remarks, *shelf.of_failed(failed)):
        journal.send(events.of_remark(remark))
    lines = [f"{name}: {each.number} put back, {each.taken + len(each.stuck)} left" for name, each in done.items()]
    troubles = [f"{name}: {each.trouble}" for name, each in done.items() if each.trouble is not None]
    journal.send(_restored(reset, back, taken, "; ".join(troubles)))
    if troubles:
        kind = BusyError if all(each.trouble in (None, leases.BUSY) for each in done.values()) else InputOutputError
        raise kind(f"not all was put back: {'; '.join(lines + troubles)}; the rest stays in reset {reset}")
    lines += [f"What was left stays in reset {reset}:", "its addresses have leases now."] if taken else []
    return "".join(f"{line}\n" for line in lines)


def _restored(reset: str, back: int, left: int, why: str) -> events.Entry:
    taken = ", for their addresses have leases now" if left else ""
    failed = f"; not all could be: {why}" if why else ""
    text = f"Restored: {events.leases(back)} of {reset} put back, {left} left{taken}{failed}."
    fields = (("CNI_RESET", reset), ("CNI_LEASES_KEPT", str(back)))
    return events.Entry(MessageId.RESTORED, events.WARNING if why else events.NOTICE, text, fields)


def _put_back(reset: int, name: str, node: Node, config: Config, remarks: list[Remark]) -> Moved:
    """Put one network's leases of an open reset back, never over a lease that exists now."""
    try:
        with ExitStack() as stack:
            data = stack.enter_context(durable.directory(config.data_dir, root=node.root, create=True))
            hold = stack.enter_context(leases.Hold(node, patience=lock.HOST_LOCAL, create=True))
            network = hold.take(data, name)
            if network is None:
                return Moved(trouble=hold.failed[name].why)
            folder = stack.enter_context(durable.opened(reset, name))
            ours = [each for each in os.listdir(folder) if leases.is_address(each)]  # nothing that others put there
            there = set(os.listdir(network))  # and nobody can add one: the lock is ours
            going = [lease for lease in ours if lease not in there]
            remarks += hold.remarks
            return setaside.move(going, folder, network)._replace(taken=len(ours) - len(going))
    except OSError as error:
        return Moved(trouble=describe(error))
