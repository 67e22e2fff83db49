"""The command line: arguments in, exit status out; the only place where an exception becomes a status."""

import io
import os
import sys
from typing import Final

from . import service
from .core import events
from .core.errors import BusyError, CniLeaseResetError, UsageError, describe, printable
from .core.findings import MessageId, Result
from .edges.journald import Journal, say
from .edges.node import Node
from .edges.systemd import Manager, Systemd

_STATUS: Final = {Result.FAILED: os.EX_IOERR, Result.MISCONFIGURED: os.EX_CONFIG}


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    try:
        status = _dispatch(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()  # whether the answer arrived is for us to tell
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  one line and a status, never a traceback
        line, status = _told(error)
        say(f"cni-lease-reset: {line}", sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            sys.stdout = None  # or Python would try again at the end, and exit with 120
    return status


def _told(error: BaseException) -> tuple[str, int]:
    """Return the line and the exit status that an exception ends in."""
    match error:
        case CniLeaseResetError():
            return str(error), error.status
        case OSError():
            return describe(error), os.EX_IOERR
        case KeyboardInterrupt():
            return "interrupted", 130
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(last.filename)}:{last.lineno}"
    return f"unexpected, please report: {type(error).__name__}: {error} ({where})", 1


def _dispatch(arguments: list[str]) -> int:
    match arguments:
        case ["boot"]:  # what the unit runs needs no parser, which would be a sixth of what a boot costs
            return _boot(Node(), Systemd())
        case ["shutdown"]:
            return _shutdown(Node(), Systemd(), force=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # whatever the locale, no character ends what is being done
    from .arguments import parser

    options = parser().parse_args(arguments)
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
    from .commands import verbs

    return verbs.run(node, systemd, options)


def _boot(node: Node, manager: Manager) -> int:
    journal = Journal(node)
    if node.rehearsal:
        from .commands.verbs import Rehearsal

        journal = Rehearsal(node)
    try:
        return _STATUS.get(service.boot(node, manager, journal).result, os.EX_OK)
    except Exception as error:  # noqa: BLE001  one entry and a status, never a traceback
        why, status = _told(error)
        match error:
            case BusyError():
                text = "Another cni-lease-reset is at work; no lease was set aside, the next boot does it."
                entry = events.Entry(MessageId.BUSY, events.WARNING, text)
            case OSError():
                fields = (("CNI_VERDICT", "unknown"), ("CNI_REASON", why))
                text = f"Nothing could be judged or set aside: {why}"
                entry = events.Entry(MessageId.FAILED, events.ERR, text, fields)
            case _:
                entry = events.Entry(MessageId.UNEXPECTED, events.ERR, f"{why[0].upper()}{why[1:]}")
        journal.send(entry)
        return status


def _shutdown(node: Node, manager: Manager, *, force: bool) -> int:
    if force and node.is_this_machine:
        raise UsageError("--force needs --root: on this machine systemd knows whether the system goes down")
    journal = Journal(node)
    try:
        service.shutdown(node, manager, journal, force=force)
    except (CniLeaseResetError, OSError) as error:
        why, status = _told(error)
        journal.send(events.of_shutdown(marked=False, why=why))
        return status
    return os.EX_OK
