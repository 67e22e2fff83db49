"""The command line: arguments in, exit status out; the only place where an exception becomes a status."""

import io
import os
import sys
from typing import Final

from . import service
from .core import events
from .core.errors import BusyError, CniLeaseResetError, UsageError, describe, printable
from .core.events import Entry
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
    except BusyError as error:
        text = "Another cni-lease-reset is at work; no lease was set aside, the next boot does it."
        journal.send(Entry(MessageId.BUSY, events.WARNING, text))
        return error.status
    except OSError as error:
        fields = (("CNI_VERDICT", "unknown"), ("CNI_REASON", describe(error)))
        text = f"Nothing could be judged or set aside: {describe(error)}"
        journal.send(Entry(MessageId.FAILED, events.ERR, text, fields))
        return os.EX_IOERR
    except Exception as error:  # noqa: BLE001  a fault of ours: one entry and a status, never a traceback
        journal.send(Entry(MessageId.UNEXPECTED, events.ERR, f"Unexpected, please report: {_where(error)}"))
        return 1


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
    except (CniLeaseResetError, OSError) as error:
        why, status = (describe(error), os.EX_IOERR) if isinstance(error, OSError) else (str(error), error.status)
        journal.send(events.of_shutdown(marked=False, why=why))
        return status
    return os.EX_OK
