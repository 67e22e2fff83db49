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
    return _lost(mountinfo.parse(foreign.glance(node, "/proc/self/mountinfo")), path, None)


def _lost(mounts: tuple[Mount, ...], path: str, unseen: str | None) -> str | None:
    mount = _above(mounts, path)
    if mount is None:
        return unseen
    if mount.kind in _MEMORY:
        return f"{mount.point} is a {mount.kind}"
    upper = next((each.removeprefix("upperdir=") for each in mount.options if each.startswith("upperdir=")), None)
    others = tuple(each for each in mounts if each is not mount)
    # What an initramfs had mounted is in nobody's sight, once it has gone over to the real root.
    why = upper and _lost(others, upper, "no mount in sight holds that (raspi-config's is in memory)")
    return why and f"{mount.point} is an overlay that writes to {upper}, and {why}"


def _above(mounts: tuple[Mount, ...], path: str) -> Mount | None:
    """Find the mount that holds a path: the longest, and of mounts at one point the last, which covers the others."""
    path = os.path.normpath(path)
    holding = [each for each in mounts if path == each.point or path.startswith(f"{each.point.rstrip('/')}/")]
    return max(reversed(holding), key=lambda each: len(each.point), default=None)
