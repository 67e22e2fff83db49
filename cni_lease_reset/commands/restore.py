"""``restore``: the way back from a reset."""

from difflib import get_close_matches

from ..core import events
from ..core.errors import RefusedError, UsageError, printable
from ..core.model import Config
from ..edges import config, durable, guard, setaside, shelf
from ..edges.journald import Journal
from ..edges.lock import only_one
from ..edges.node import Node, set_aside_directory
from ..edges.systemd import Manager


def restore(node: Node, manager: Manager, journal: Journal, reset: str) -> str:
    """Put a reset's leases back, and say what was done. Raises :class:`UsageError` where there is no such reset."""
    settings = config.read(node).config
    known = _resets(node, settings)
    if reset not in known:
        same = [each for each in known if each.partition("-")[0] == reset]  # its number alone
        near = same or get_close_matches(reset, known, n=1, cutoff=0.3)
        hint = f", did you mean '{near[0]}'?" if near else "; cni-lease-reset status lists them"
        raise UsageError(f"there is no reset {printable(reset, quoted=True)}{hint}")
    with only_one(node):
        objection = guard.objection(node, settings, manager)[0]
        if objection is not None:  # before anything is locked: a lock file or a directory would be made
            raise RefusedError(f"nothing was put back: {objection}")
        done = setaside.restore(reset, node, settings, lambda: guard.objection(node, settings, manager)[0])
    back, left = sum(each.back for each in done), sum(each.left for each in done)
    journal.send(events.restored(reset, back=back, left=left))
    lines = [f"{printable(each.network)}: {each.back} put back, {each.left} left" for each in done]
    lines += [f"What was left stays in reset {reset}:", "its addresses have leases now."] if left else []
    return "".join(f"{line}\n" for line in lines)


def _resets(node: Node, settings: Config) -> list[str]:
    try:
        with durable.directory(set_aside_directory(settings.data_dir), root=node.root) as above:
            return shelf.resets(above)
    except FileNotFoundError:
        return []
