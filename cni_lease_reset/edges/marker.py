"""The boot marker: one small file that says whether the last boot came to a clean end."""

import re
from contextlib import suppress
from typing import Final

from ..core.errors import printable
from ..core.model import BootId, DamagedMarker, Marker, NoMarker, Reading, State
from . import durable
from .node import STATE_DIRECTORY, Node, utc

NAME: Final = "marker"
_HEADER: Final = '# Written by cni-lease-reset(8). "running" until a clean shutdown replaces it with "clean".\n'
_FORMS: Final = {  # of the values
    "state": "running|clean",
    "boot_id": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "since": r"[0-9]{4,}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z",
}
_LIMIT: Final = 4096  # a marker is 200 bytes


def parse(content: bytes) -> Marker | DamagedMarker:
    """Read a marker. Exactly our three keys, once each, and a final newline; whatever else it is, it is damaged."""
    if not content:
        return DamagedMarker("it is empty")
    if not content.isascii():
        return DamagedMarker("it is not text")
    text = content.decode()
    if not text.endswith("\n"):
        return DamagedMarker("its last line is cut off")
    pairs = [line.partition("=") for line in text[:-1].split("\n") if not line.startswith("#")]
    values = {key: value for key, _, value in pairs}
    if len(pairs) != len(_FORMS) or values.keys() != _FORMS.keys():
        return DamagedMarker(f"it does not hold just {', '.join(_FORMS)}, once each")
    for key, form in _FORMS.items():
        if not re.fullmatch(form, values[key]):
            return DamagedMarker(f"it says {key}={printable(values[key][:40])}")
    return Marker(State(values["state"]), BootId(values["boot_id"]), values["since"])


def render(marker: Marker) -> bytes:
    """Write a marker down, for people and for :func:`parse`."""
    return f"{_HEADER}state={marker.state}\nboot_id={marker.boot_id}\nsince={marker.since}\n".encode()


def read(node: Node) -> Reading:
    """Read the marker; an unreadable one is damaged, never absent. Raises ``OSError`` for its directory."""
    try:
        with durable.directory(STATE_DIRECTORY, root=node.root, through=True) as directory:
            content, status = durable.read(NAME, _LIMIT, parent=directory)
    except FileNotFoundError:
        return NoMarker()
    except OSError as error:
        if error.filename != NAME:  # it is its directory's
            raise
        is_file = not isinstance(error, durable.NotAFileError)
        return DamagedMarker(f"reading it fails: {error.strerror}", unread=is_file)
    found = parse(content)
    return found._replace(written=status.st_mtime) if isinstance(found, Marker) else found


def take(node: Node) -> None:
    """Remove the marker for good: nothing older can speak for this boot. Needs no space. Raises ``OSError``."""
    if not node.rehearsal:
        with suppress(FileNotFoundError), durable.directory(STATE_DIRECTORY, root=node.root) as directory:
            durable.remove(directory, NAME)


def record(node: Node, state: State, boot_id: BootId) -> None:
    """Replace the marker, durably. Raises ``OSError``."""
    if not node.rehearsal:
        with durable.directory(STATE_DIRECTORY, root=node.root) as directory:
            durable.replace(directory, NAME, render(Marker(state, boot_id, utc())))
