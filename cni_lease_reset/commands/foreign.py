"""Files that others wrote: of bounded size, regular, and never waited for."""

import os
from typing import Final

from ..edges import durable
from ..edges.node import Node

LIMIT: Final = 1 << 20


def text(node: Node, path: str) -> str:
    """Read a file of at most :data:`LIMIT` bytes. Raises ``OSError``."""
    with durable.named(path, always=True):
        return durable.whole(node.path(path), LIMIT)[0].decode(errors="replace")


def listing(node: Node, directory: str, *endings: str) -> list[str]:
    """List the files of a directory with one of these endings, sorted by name; nothing where it cannot be listed."""
    try:
        return sorted(name for name in os.listdir(node.path(directory)) if name.endswith(endings))
    except OSError:
        return []
