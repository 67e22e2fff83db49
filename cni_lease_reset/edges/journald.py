"""The journal, over its native protocol. Source: systemd's docs/JOURNAL_NATIVE_PROTOCOL.md.

Not ``pystemd.journal``: it loses a message in silence where no journald listens, and costs 30 ms of import.
"""

import os
import socket
import sys
from contextlib import suppress
from typing import Final, TextIO

from ..core.events import Entry
from ..core.model import LEASE_RESET, UNIT
from .node import Node

SOCKET: Final = "/run/systemd/journal/socket"
MOST: Final = 100  # characters of a message: `systemctl status` shows it in one line; CNI_REASON holds all of it


class Journal:
    """Sends entries to journald, without ever waiting; where it does not take them, the text goes to ``stderr``."""

    def __init__(self, node: Node, *, path: str = SOCKET) -> None:
        self._path = path if node.is_this_machine else None
        self._stderr = sys.stderr

    def send(self, entry: Entry) -> None:
        """Send one entry; a person at a terminal reads it there, too."""
        datagram, sent = serialise(entry), 0
        if self._path is not None:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
                journald.setblocking(False)
                sent = journald.sendto(datagram, self._path)
        if sent != len(datagram) or (self._stderr is not None and self._stderr.isatty()):
            # Under systemd our stderr is a journal stream, and <N> is its way to tell a priority.
            prefix = f"<{entry.priority}>" if "JOURNAL_STREAM" in os.environ else f"{LEASE_RESET}: "
            say(f"{prefix}{entry.message}", self._stderr)


def say(line: str, stderr: TextIO | None) -> None:
    """Tell a person. Where nobody listens any more, neither what is done nor the exit status changes for that."""
    try:
        if stderr is not None:
            print(line, file=stderr, flush=True)
    except OSError:
        sys.stderr = None  # or Python would try again at the end, and exit with 120


def serialise(entry: Entry) -> bytes:
    """Write an entry as journald takes it: ``KEY=value``, or for a value of several lines its length before it."""
    short = entry.message if len(entry.message) <= MOST else f"{entry.message[: MOST - 1]}…"
    pairs = (
        ("MESSAGE", short),
        ("MESSAGE_ID", entry.message_id),
        ("PRIORITY", str(entry.priority)),
        ("SYSLOG_IDENTIFIER", LEASE_RESET),
        *entry.fields,
        *(() if "CNI_REASON" in dict(entry.fields) else (("CNI_REASON", entry.reason),)),
        ("OBJECT_SYSTEMD_UNIT", UNIT),  # a process that exits at once can lose its unit in `journalctl -u`: name it
    )
    return b"".join(_field(key.encode(), value.encode("utf-8", "backslashreplace")) for key, value in pairs)


def _field(key: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return key + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return key + b"=" + value + b"\n"
