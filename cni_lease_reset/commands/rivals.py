"""Others that empty the same directories at boot, before us: tmpfiles.d lines, and Harvester's own stage."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from ..core.errors import printable
from ..edges.node import STATE_DIRECTORY, Node
from . import foreign

HARVESTER: Final = ("/system/oem/99_cni_reset.yaml", "/oem/99_cni_reset.yaml")  # of the image, and of an administrator
# In the order of tmpfiles.d(5): a file in an earlier directory replaces those of its name in later ones.
TMPFILES: Final = ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d")


def find(node: Node, networks: Sequence[str]) -> Iterator[str]:
    """Say who empties one of these directories, or our own, at boot; what cannot be read is nobody's."""
    ours = [PurePosixPath(f"{network}/10.42.0.2") for network in networks]  # one lease stands for all
    ours.append(PurePosixPath(STATE_DIRECTORY, "marker"))
    files: dict[str, str] = {}
    for directory in TMPFILES:
        for name in foreign.listing(node, directory, ".conf"):
            files.setdefault(name, f"{directory}/{name}")
    for path in files.values():
        for number, line in enumerate(foreign.glance(node, path).splitlines(), 1):
            lost = _taken(line, ours)
            if lost is not None:
                where = printable(f"{path}:{number}")
                yield f"{where} empties {printable(str(lost.parent))} at boot, so what leaked is not seen"
    for path in HARVESTER:
        lines = foreign.glance(node, path).splitlines()
        text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        emptied = next((each for each in networks if each in text or f"{os.path.dirname(each)}/*" in text), None)
        if emptied is not None:
            yield f"{path} empties {printable(emptied)} at each boot, so what leaked is not seen"


def _taken(line: str, files: Sequence[PurePosixPath]) -> PurePosixPath | None:
    """Tell which file a line of tmpfiles.d takes: r by a pattern, R also with what is above it, D with that alone."""
    try:
        kind, pattern, *_ = shlex.split(line, comments=True)
    except ValueError:
        return None
    name = os.path.basename(pattern)
    for file in files if pattern.startswith("/") else ():
        lease = (
            file.with_name(name) if re.fullmatch("[0-9a-f:*?][0-9a-f.:*?]*", name) else file
        )  # it may mean addresses
        gone = {"r": [file, lease], "R": [file, lease, *file.parents], "D": file.parents}.get(kind[:1], ())
        if any(each.match(pattern) for each in gone):
            return file
    return None
