"""Files that others wrote: of bounded size, regular, and never waited for."""

import os
import stat
from typing import Final

from ..edges.node import Node

LIMIT: Final = 1 << 20


def text(node: Node, path: str) -> str:
    """Read a file of at most :data:`LIMIT` bytes, links followed, for whoever may write there is root.

    Raises ``OSError``, and ``ValueError`` where it is longer or no regular file.
    """
    # O_NONBLOCK: a FIFO in its place must not hold us up.
    with open(os.open(node.path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise ValueError(f"longer than {LIMIT >> 10} KiB")
    return content.decode(errors="replace")


def listing(node: Node, directory: str, *endings: str) -> list[str]:
    """List the files of a directory with one of these endings, sorted by name; nothing where it cannot be listed."""
    try:
        return sorted(name for name in os.listdir(node.path(directory)) if name.endswith(endings))
    except OSError:
        return []
