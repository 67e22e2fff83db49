"""Others that empty the same directories at boot, before us: tmpfiles.d lines, and Harvester's own stage."""

import os
import shlex
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final

from ..core.errors import printable
from ..edges.node import STATE_DIRECTORY, Node
from . import foreign

HARVESTER: Final = ("/system/oem/99_cni_reset.yaml", "/oem/99_cni_reset.yaml")  # of the image, and of an administrator
# In the order of tmpfiles.d(5): a file in an earlier directory replaces those of its name in later ones.
TMPFILES: Final = ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d")


def find(node: Node, networks: Sequence[str]) -> tuple[str, ...]:
    """Say who empties one of these directories, or our own, at boot; what cannot be read is nobody's."""
    paths = (*networks, STATE_DIRECTORY)
    return (*_tmpfiles(node, paths), *_harvester(node, networks))


def _tmpfiles(node: Node, paths: Sequence[str]) -> Iterator[str]:
    files: dict[str, str] = {}
    for directory in TMPFILES:
        for name in foreign.listing(node, directory, ".conf"):
            files.setdefault(name, f"{directory}/{name}")
    for path in files.values():
        for number, line in enumerate(_lines(node, path), 1):
            emptied = _emptied(line, paths)
            if emptied is not None:
                where = printable(f"{path}:{number}")
                yield f"{where} empties {printable(emptied)} at boot, so what leaked is not seen"


def _lines(node: Node, path: str) -> list[str]:
    try:
        return foreign.text(node, path).splitlines()
    except OSError:
        return []


def _emptied(line: str, paths: Sequence[str]) -> str | None:
    """Tell which path a line of tmpfiles.d empties or removes: r, R and D do, and the first two know patterns."""
    try:
        kind, pattern, *_ = shlex.split(line, comments=True)
    except ValueError:
        return None
    if kind[:1] not in ("r", "R", "D") or not pattern.startswith("/"):
        return None
    for path in paths:
        parts = path.split("/")
        # It or a directory above it goes as a whole ("r" takes no directory that is not empty), or all that is in it.
        whole = kind[0] != "r" and any(_is(pattern, "/".join(parts[:end])) for end in range(2, len(parts) + 1))
        above, _, last = pattern.rpartition("/")
        if whole or (kind[0] != "D" and "*" in last and _is(above, path)):
            return path
    return None


def _is(pattern: str, path: str) -> bool:
    """Whether a pattern of glob(7) means a path; a star stays within one name."""
    ours, theirs = pattern.rstrip("/").split("/"), path.split("/")
    return len(ours) == len(theirs) and all(fnmatchcase(name, each) for each, name in zip(ours, theirs, strict=True))


def _harvester(node: Node, networks: Sequence[str]) -> Iterator[str]:
    for path in HARVESTER:
        text = "\n".join(line for line in _lines(node, path) if not line.lstrip().startswith("#"))
        for network in networks:
            if network in text or f"{os.path.dirname(network)}/*" in text:
                yield f"{path} empties {printable(network)} at each boot, so what leaked is not seen"
                break
