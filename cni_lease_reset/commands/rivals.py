"""What empties our directories at boot: file systems in memory, tmpfiles.d lines, and Harvester's own stage."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from ..core.errors import printable
from ..edges.mountinfo import Mount, parse
from ..edges.node import STATE_DIRECTORY, Node
from . import foreign

_MEMORY: Final = ("tmpfs", "ramfs", "rootfs")
HARVESTER: Final = ("/system/oem/99_cni_reset.yaml", "/oem/99_cni_reset.yaml")  # of the image, and of an administrator
# In the order of tmpfiles.d(5): a file in an earlier directory replaces those of its name in later ones.
TMPFILES: Final = ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d")


def find(node: Node, networks: Sequence[str]) -> Iterator[str]:
    """Say who empties one of these directories, or our own, at boot; what cannot be read is nobody's."""
    # One lease stands for all; and what is lost with each.
    ours = dict.fromkeys((PurePosixPath(network, "10.42.0.2") for network in networks), "what leaked is not seen")
    ours[PurePosixPath(STATE_DIRECTORY, "marker")] = "the marker is lost and every boot sets all leases aside"
    listed = [(name, each) for each in reversed(TMPFILES) for name in foreign.listing(node, each, ".conf")]
    for path in {name: f"{directory}/{name}" for name, directory in listed}.values():
        for number, line in enumerate(foreign.glance(node, path).splitlines(), 1):
            if taken := [file for file in ours if _takes(line, file)]:
                lost = ", ".join(dict.fromkeys(ours[file] for file in taken))
                yield f"{printable(f'{path}:{number}')} empties {printable(str(taken[0].parent))} at boot, so {lost}"
    for path in HARVESTER:
        lines = foreign.glance(node, path).splitlines()
        text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        if emptied := [each for each in networks if each in text or f"{os.path.dirname(each)}/*" in text]:
            yield f"{path} empties {printable(emptied[0])} at each boot, so what leaked is not seen"


def _takes(line: str, file: PurePosixPath) -> bool:
    """Whether a line of tmpfiles.d takes a file: r by a pattern, R also with what is above it, D with that alone."""
    try:
        kind, pattern, *_ = shlex.split(line, comments=True)
    except ValueError:
        return False
    name = os.path.basename(pattern)
    means_addresses = re.fullmatch("[0-9a-f:*?][0-9a-f.:*?]*", name) and file.name != "marker"
    lease = file.with_name(name) if means_addresses else file
    gone = {"r": [file, lease], "R": [file, lease, *file.parents], "D": file.parents}.get(kind[:1], ())
    return pattern.startswith("/") and any(each.match(pattern) for each in gone)


def volatile(node: Node, path: str, *above: Mount) -> str | None:
    """Say why what is written below ``path`` does not survive a boot; ``None`` where it does, or nobody can tell."""
    mounts = [each for each in parse(foreign.glance(node, "/proc/self/mountinfo")) if each not in above]
    mount = _above(mounts, path)
    if mount is None:  # what an initramfs had mounted is in nobody's sight, once it has gone over to the real root
        return "no mount in sight holds that (raspi-config's is in memory)" if above else None
    if mount.kind in _MEMORY:
        return f"{mount.point} is a {mount.kind}"
    upper = next((each.removeprefix("upperdir=") for each in mount.options if each.startswith("upperdir=")), None)
    why = upper and volatile(node, upper, *above, mount)
    return why and f"{mount.point} is an overlay that writes to {upper}, and {why}"


def _above(mounts: Sequence[Mount], path: str) -> Mount | None:
    """Find the mount that holds a path: the longest, and of mounts at one point the last, which covers the others."""
    path = os.path.normpath(path)
    holding = [each for each in mounts if path == each.point or path.startswith(f"{each.point.rstrip('/')}/")]
    return max(reversed(holding), key=lambda each: len(each.point), default=None)
