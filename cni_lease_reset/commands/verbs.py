"""What a person typed, done: the answer on stdout, the exit status out. A verb imports what it needs, and no more."""

import argparse
import os
import sys
from functools import partial
from typing import Final

from ..core import events
from ..core.errors import RefusedError, UsageError
from ..core.events import Entry
from ..edges import config
from ..edges.journald import Journal
from ..edges.node import Node
from ..edges.systemd import Manager
from . import settings
from .screen import wrapped

_ATTENTION: Final = 3  # of status --check


def run(node: Node, systemd: Manager, options: argparse.Namespace) -> int:
    """Do what was asked for, all but ``boot`` and ``shutdown``, which are the unit's."""
    match options.verb:
        case "status":
            return _status(node, systemd, options)
        case "recover":
            return _recover(node, options)
        case "restore":
            from .restore import restore

            _answer(restore(node, Journal(node), options.reset))
        case "history":
            from . import history

            found = history.read(node)
            _answer(history.as_json(found) if options.json else history.as_text(found))
        case _:
            _answer(settings.as_text(config.read(node)))
    return os.EX_OK


class Rehearsal(Journal):
    """Says what boot would say, as the answer to ``boot --dry-run``."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        blind = "" if os.geteuid() in node.trusted_users else " (without root, locks and torn leases can go unseen)"
        _answer(f"A run now would say{blind}:\n")

    def send(self, entry: Entry) -> None:
        """Answer with an entry's message, and its reason where that says more."""
        reason = [f"Reason: {entry.reason}."] if entry.reason != entry.message else []
        for text in (entry.message, *reason):
            _answer("".join(f"{line}\n" for line in wrapped(text, indent=2)))


def _recover(node: Node, options: argparse.Namespace) -> int:
    from . import recover
    from .fate import Fate

    if options.crowded and config.read(node).max_kept_leases is None:
        print("max_kept_leases is null: no network counts as crowded.")
        return os.EX_OK
    attended = not (options.yes and options.crowded)
    if attended:
        seen = recover.look(node, crowded=options.crowded)
        print(recover.as_text(seen), end="", flush=True)
        if doubts := [each for sight in seen for each in sight.living.doubts]:
            raise RefusedError(f"nothing was changed: {doubts[0]}")
        leaked = sum(len(sight.of(Fate.LEAKED)) for sight in seen)
        if options.dry_run or not leaked:
            if failure := recover.failed(seen):
                raise failure
            later = ", yet: ask again in five minutes" if any(sight.of(Fate.YOUNG) for sight in seen) else ""
            print("Nothing was changed." if leaked else f"Nothing to recover{later}.")
            return os.EX_OK
        if not (options.yes or _confirmed(f"Set aside {events.leases(leaked)}? [y/N] ")):
            raise RefusedError("nothing was changed")
    failure = recover.work(node, Journal(node), partial(print, flush=True), crowded=options.crowded)
    if failure is not None and attended:
        raise failure
    return os.EX_OK if failure is None else failure.status


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("recover asks before it changes anything: without a terminal say --yes, or --dry-run")
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _answer(text: str) -> None:
    """Print an answer that nothing comes after; ``recover`` must learn that nobody reads on, and does not use it."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # whoever read it, "head" for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status(node: Node, systemd: Manager, options: argparse.Namespace) -> int:
    from . import display, metrics, status

    report = status.gather(node, systemd)
    if options.metrics is True:
        _answer(metrics.text(report))
    elif options.metrics:
        metrics.write(node, options.metrics, metrics.text(report))
    else:
        _answer(display.as_json(report) if options.json else display.as_text(report))
    return _ATTENTION if options.check and (report.attention or report.unread) else os.EX_OK
