"""Which directories a boot empties: file systems in memory, and overlays that write to one. Source: proc(5)."""

import os
import re
from typing import Final, NamedTuple

from ..edges.node import Node
from . import foreign

_MOUNTS: Final = "/proc/self/mountinfo"
_MEMORY: Final = ("tmpfs", "ramfs", "rootfs")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of mountinfo."""

    point: str
    kind: str
    options: tuple[str, ...]  # of the file system itself


def volatile(node: Node, path: str) -> str | None:
    """Say why what is written below ``path`` does not survive a boot; ``None`` where it does, or nobody can tell."""
    try:
        mounts = parse(foreign.text(node, _MOUNTS))
    except (OSError, ValueError):
        return None
    mount = _above(mounts, path)
    if mount is None:
        return None
    if mount.kind in _MEMORY:
        return f"{mount.point} is a {mount.kind}"
    for option in mount.options if mount.kind == "overlay" else ():
        key, _, upper = option.partition("=")
        below = _above(mounts, upper) if key == "upperdir" else None
        if below is not None and below.kind in _MEMORY:
            return f"{mount.point} is an overlay that writes to a {below.kind}"
    return None


def parse(text: str) -> tuple[Mount, ...]:
    """Read mountinfo: fields, of them the fifth the mount point; after a lone hyphen type, source and options."""
    found = []
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if len(fields) > 4 and len(rest) > 2:
            found.append(Mount(_unescaped(fields[4]), rest[0], tuple(map(_unescaped, rest[2].split(",")))))
    return tuple(found)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _above(mounts: tuple[Mount, ...], path: str) -> Mount | None:
    """Find the mount that holds a path: the longest, and of mounts at one point the last, which covers the others."""
    path = os.path.normpath(path)
    holding = [each for each in mounts if path == each.point or path.startswith(f"{each.point.rstrip('/')}/")]
    return max(reversed(holding), key=lambda each: len(each.point), default=None)
