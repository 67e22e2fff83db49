"""``restore``: the way back from a reset. RKE2 may be up: under host-local's lock a lease comes back where none is."""

from difflib import get_close_matches

from ..core import events
from ..core.errors import BusyError, InputOutputError, RefusedError, UsageError, printable
from ..core.outcome import of_stuck
from ..edges import config, durable, setaside, shelf
from ..edges.journald import Journal
from ..edges.lock import only_one
from ..edges.node import Node, set_aside_directory


def restore(node: Node, journal: Journal, reset: str) -> str:
    """Put a reset's leases back, and say what was done.

    Raises :class:`UsageError` where there is no such reset, :class:`RefusedError` where it is of another ``data_dir``;
    :class:`BusyError` and :class:`InputOutputError` say how many are back where not all could be.
    """
    settings = config.read(node).config
    known = shelf.listing(node, settings)
    if reset not in known:
        same = [each for each in known if each.partition("-")[0] == reset]  # its number alone
        near = same or get_close_matches(reset, known, n=1, cutoff=0.3)
        hint = f", did you mean '{near[0]}'?" if near else "; cni-lease-reset status lists them"
        raise UsageError(f"there is no reset {printable(reset, quoted=True)}{hint}")
    failed: list[OSError] = []
    with only_one(node), durable.directory(set_aside_directory(settings.data_dir), root=node.root) as above:
        with durable.opened(above, reset) as folder:
            its = shelf.origin(folder)[1]
            if its not in ("", settings.data_dir):
                now = f"{printable(its, quoted=True)}, and data_dir is '{settings.data_dir}' now; set it back for this"
                raise RefusedError(f"nothing was changed: the leases of reset {reset} are of {now}")
            done = {printable(name): setaside.restore(folder, name, node, settings) for name in shelf.folders(folder)}
        if not any(each.taken or each.stuck or each.trouble for each in done.values()):
            shelf.discard(above, reset, failed)
    back, taken = sum(each.number for each in done.values()), sum(each.taken for each in done.values())
    stuck = of_stuck(tuple(lease for each in done.values() for lease in each.stuck))
    for remark in (*(remark for each in done.values() for remark in each.remarks), *stuck, *shelf.of_failed(failed)):
        journal.send(events.of_remark(remark))
    lines = [f"{name}: {each.number} put back, {each.taken + len(each.stuck)} left" for name, each in done.items()]
    troubles = [f"{name}: {each.trouble}" for name, each in done.items() if each.trouble is not None]
    journal.send(events.restored(reset, back=back, left=taken, why="; ".join(troubles)))
    if troubles:
        kind = BusyError if all(each.trouble in (None, setaside.BUSY) for each in done.values()) else InputOutputError
        raise kind(f"not all was put back: {'; '.join(lines + troubles)}; the rest stays in reset {reset}")
    lines += [f"What was left stays in reset {reset}:", "its addresses have leases now."] if taken else []
    return "".join(f"{line}\n" for line in lines)
