"""The command line: arguments in, exit status out; the only place where an exception becomes a status."""

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from . import service
from .core import events
from .core.errors import BusyError, CniLeaseResetError, RefusedError, UsageError, describe, printable
from .core.events import Entry
from .core.findings import Result
from .edges.journald import Journal, say
from .edges.node import Node
from .edges.systemd import Manager, Systemd

if TYPE_CHECKING:
    import argparse

_ATTENTION: Final = 3  # of status --check
_STATUS: Final = {Result.FAILED: os.EX_IOERR, Result.MISCONFIGURED: os.EX_CONFIG}


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    try:
        status = _dispatch(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()  # whether the answer arrived is for us to tell
        return status
    except CniLeaseResetError as error:
        return _fail(str(error), error.status)
    except OSError as error:
        return _fail(describe(error), os.EX_IOERR)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:  # noqa: BLE001  a fault of ours: one line and a status, never a traceback
        return _fail(f"unexpected, please report: {_where(error)}", 1)


def _fail(line: str, status: int) -> int:
    say(f"cni-lease-reset: {line}", sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = None  # or Python would try again at the end, and exit with 120
    return status


def _dispatch(arguments: list[str]) -> int:
    match arguments:
        case ["boot"]:  # what the unit runs needs no parser, which would be a sixth of what a boot costs
            return _boot(Node(), Systemd())
        case ["shutdown"]:
            return _shutdown(Node(), Systemd(), force=False)
    from .arguments import parser

    return _run(parser().parse_args(arguments))


def _run(options: "argparse.Namespace") -> int:
    node = Node(os.path.realpath(options.root))
    try:
        os.close(os.open(node.root, os.O_PATH | os.O_DIRECTORY))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"--root: {printable(options.root, quoted=True)} is not a directory") from error
    systemd = Systemd() if node.is_this_machine else Manager()
    match options.verb:
        case "boot":
            return _boot(node._replace(rehearsal=options.dry_run), systemd)
        case "shutdown":
            return _shutdown(node, systemd, force=options.force)
        case "status":
            return _status(node, systemd, options)
        case "recover":
            return _recover(node, options)
        case "restore":
            from .commands.restore import restore

            _answer(restore(node, Journal(node), options.reset))
        case "history":
            from .commands import history, screen

            found = history.read(node)
            _answer(history.as_json(found) if options.json else history.as_text(found, screen.of(sys.stdout)))
        case _:
            from .edges import config

            _answer(config.render(config.read(node)))
    return os.EX_OK


def _boot(node: Node, manager: Manager) -> int:
    journal = Journal(node)
    if node.rehearsal:
        journal = _Rehearsal(node)
        blind = "" if os.geteuid() in node.trusted_users else " (without root, locks and torn leases can go unseen)"
        _answer(f"A run now would say{blind}:\n")
    try:
        return _STATUS.get(service.boot(node, manager, journal).result, os.EX_OK)
    except BusyError as error:
        journal.send(events.busy())
        return error.status
    except OSError as error:
        journal.send(events.impossible(describe(error)))
        return os.EX_IOERR
    except Exception as error:  # noqa: BLE001  a fault of ours: one entry and a status, never a traceback
        journal.send(events.unexpected(_where(error)))
        return 1


class _Rehearsal(Journal):
    """Says what boot would say, as the answer to ``boot --dry-run``."""

    def send(self, entry: Entry) -> None:
        from .commands.screen import wrapped

        reason = dict(entry.fields)["CNI_REASON"]
        for text in [entry.message] if reason == entry.message else [entry.message, f"Reason: {reason}."]:
            _answer("".join(f"{line}\n" for line in wrapped(text, indent=2)))


def _where(error: BaseException) -> str:
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(last.filename)}:{last.lineno})"


def _shutdown(node: Node, manager: Manager, *, force: bool) -> int:
    if force and node.is_this_machine:
        raise UsageError("--force needs --root: on this machine systemd knows whether the system goes down")
    journal = Journal(node)
    try:
        service.shutdown(node, manager, journal, force=force)
    except CniLeaseResetError as error:
        journal.send(events.of_shutdown(marked=False, why=str(error)))
        return error.status
    except OSError as error:
        journal.send(events.of_shutdown(marked=False, why=describe(error)))
        return os.EX_IOERR
    return os.EX_OK


def _recover(node: Node, options: "argparse.Namespace") -> int:
    from .commands import recover
    from .core.fate import Fate
    from .edges import config

    if options.crowded and config.read(node).config.max_kept_leases is None:
        print("max_kept_leases is null: no network counts as crowded.")
        return os.EX_OK
    attended = not (options.yes and options.crowded)
    if attended:
        seen = recover.look(node, crowded=options.crowded)
        print(recover.as_text(seen), end="", flush=True)
        doubts = [each for sight in seen for each in sight.living.doubts]
        if doubts:
            raise RefusedError(f"nothing was changed: {doubts[0]}")
        leaked = any(sight.of(Fate.LEAKED) for sight in seen)
        if options.dry_run or not leaked:
            if failure := recover.failed(seen):
                raise failure
            print("Nothing was changed." if leaked else "Nothing to recover.")
            return os.EX_OK
    if not (options.yes or _confirmed()):
        raise RefusedError("nothing was changed")
    failure = recover.work(node, Journal(node), partial(print, flush=True), crowded=options.crowded)
    if failure is not None and attended:
        raise failure
    return os.EX_OK if failure is None else failure.status


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("recover asks before it changes anything: without a terminal say --yes, or --dry-run")
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _answer(text: str) -> None:
    """Print an answer that nothing comes after; ``recover`` must learn that nobody reads on, and does not use it."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # whoever read it, "head" for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status(node: Node, systemd: Manager, options: "argparse.Namespace") -> int:
    from .commands import display, metrics, screen, status

    report = status.gather(node, systemd)
    if options.metrics is True:
        _answer(metrics.text(report))
    elif options.metrics:
        metrics.write(node, options.metrics, metrics.text(report))
    elif options.json:
        _answer(display.as_json(report))
    else:
        _answer(display.as_text(report, screen.of(sys.stdout)))
    return _ATTENTION if options.check and (report.attention or report.unread) else os.EX_OK
