"""Which directories a boot empties: file systems in memory, and overlays that write to one."""

import os
from typing import Final

from ..edges import mountinfo
from ..edges.mountinfo import Mount
from ..edges.node import Node
from . import foreign

_MEMORY: Final = ("tmpfs", "ramfs", "rootfs")


def volatile(node: Node, path: str) -> str | None:
    """Say why what is written below ``path`` does not survive a boot; ``None`` where it does, or nobody can tell."""
    mounts = mountinfo.parse(foreign.glance(node, "/proc/self/mountinfo"))
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


def _above(mounts: tuple[Mount, ...], path: str) -> Mount | None:
    """Find the mount that holds a path: the longest, and of mounts at one point the last, which covers the others."""
    path = os.path.normpath(path)
    holding = [each for each in mounts if path == each.point or path.startswith(f"{each.point.rstrip('/')}/")]
    return max(reversed(holding), key=lambda each: len(each.point), default=None)
