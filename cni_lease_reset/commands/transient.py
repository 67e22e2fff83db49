"""The transient unit in which ``recover`` works.

The runtime's units are ordered after it, so nobody's start of them gets in between; and its ExecStopPost= starts them
again however the work ends: done, refused, killed, timed out, or its terminal lost.
"""

import os
import time
from typing import Final

from ..core.errors import InputOutputError, RefusedError
from ..core.model import LEASE_RESET, PROGRAM
from ..edges import config, durable
from ..edges.journald import Journal
from ..edges.node import RUNTIME_DIRECTORY, Node
from ..edges.systemd import Operator, TransientUnit
from .recover import Say, work

UNIT: Final = f"{LEASE_RESET}-recover.service"
_PROGRESS: Final = "recover"
_EXIT: Final = "exit "  # begins the last line of the progress
_SECONDS: Final = 300  # for all of it; most is for the runtime's units to stop
_POLL: Final = 0.2


def start(node: Node, operator: Operator, units: tuple[str, ...], say: Say) -> int:
    """Start the transient unit that does the work, pass on what it says, and return its exit status."""
    if not os.access(PROGRAM, os.X_OK):
        raise InputOutputError(f"'{PROGRAM}' is not there: install the package")
    at_work = operator.at_work(UNIT)
    if at_work is None:
        raise RefusedError("nothing was changed: systemd cannot be asked whether another recover is at work")
    if at_work:
        raise RefusedError(f"another recover is at work in {UNIT}; nothing was changed")
    settings = config.read(node).config
    path = node.path(f"{RUNTIME_DIRECTORY}/{_PROGRESS}")
    with durable.directory(RUNTIME_DIRECTORY, root=node.root, create=True) as directory:
        durable.replace(directory, _PROGRESS, b"")
    again = ("/usr/bin/systemctl", "--no-block", "start", "--", *units) if units else ("/usr/bin/true",)
    command = (PROGRAM, "recover", "--worker", *units)
    description = "Set aside leaked pod addresses while the container runtime is down"
    operator.start(TransientUnit(UNIT, description, settings.runtime_units, command, again, path, _SECONDS))
    try:
        return follow(path, operator, say)
    except KeyboardInterrupt:
        say(f"recover goes on without you in {UNIT}; its progress is in '{path}'")
        raise


def follow(path: str, operator: Operator, say: Say) -> int:
    """Pass on the progress until its last line, which holds the exit status."""
    with open(path, encoding="utf-8", errors="replace") as progress:  # systemd appends to it
        while True:
            ended = operator.at_work(UNIT) is False  # asked first: whatever was said until then is read below
            for line in progress:
                if line.startswith(_EXIT):
                    return int(line.removeprefix(_EXIT))
                say(line.rstrip("\n"))
            if ended:
                cut = "recover was cut short; what it set aside is in status, and the units start again"
                raise InputOutputError(f"{cut}: see journalctl -u {UNIT}")
            time.sleep(_POLL)


def work_in_unit(node: Node, operator: Operator, journal: Journal, units: tuple[str, ...], say: Say) -> None:
    """Do the work of ``recover``, in the transient unit. Raises as :func:`.recover.work` does."""

    def stop() -> None:
        if units:
            say(f"Stopping {', '.join(units)}; the pods go on running.")
            operator.stop(units)

    work(node, operator, journal, say, stop=stop)


def last_words(units: tuple[str, ...], status: int) -> str:
    """Tell whoever follows the progress what happens to the units, and how the work ended."""
    queued = f"The start of {', '.join(units)} is queued; watch it with: systemctl status {units[0]}\n" if units else ""
    return f"{queued}{_EXIT}{status}"
