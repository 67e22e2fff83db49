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
    # One lease stands for all; and what is lost with each.
    ours = dict.fromkeys((PurePosixPath(network, "10.42.0.2") for network in networks), "what leaked is not seen")
    ours[PurePosixPath(STATE_DIRECTORY, "marker")] = "the marker is lost and every boot sets all leases aside"
    files: dict[str, str] = {}
    for directory in TMPFILES:
        for name in foreign.listing(node, directory, ".conf"):
            files.setdefault(name, f"{directory}/{name}")
    for path in files.values():
        for number, line in enumerate(foreign.glance(node, path).splitlines(), 1):
            taken = [file for file in ours if _takes(line, file)]
            if taken:
                lost = ", ".join(dict.fromkeys(ours[file] for file in taken))
                where = printable(f"{path}:{number}")
                yield f"{where} empties {printable(str(taken[0].parent))} at boot, so {lost}"
    for path in HARVESTER:
        lines = foreign.glance(node, path).splitlines()
        text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        emptied = next((each for each in networks if each in text or f"{os.path.dirname(each)}/*" in text), None)
        if emptied is not None:
            yield f"{path} empties {printable(emptied)} at each boot, so what leaked is not seen"


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
