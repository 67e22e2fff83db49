"""What others wrote: files of bounded size, regular, and never waited for; JSON of whatever shape."""

import os
from typing import Final, TypeVar

from ..edges import durable
from ..edges.node import Node

LIMIT: Final = 1 << 20

T = TypeVar("T")


def text(node: Node, path: str) -> str:
    """Read a file of at most :data:`LIMIT` bytes. Raises ``OSError``."""
    with durable.named(path, always=True):
        return durable.read(node.path(path), LIMIT)[0].decode(errors="replace")


def glance(node: Node, path: str) -> str:
    """Do the same; one that cannot be read says nothing."""
    try:
        return text(node, path)
    except OSError:
        return ""


def listing(node: Node, directory: str, *endings: str) -> list[str]:
    """List the files of a directory with one of these endings, sorted by name; nothing where it cannot be listed."""
    try:
        return sorted(name for name in os.listdir(node.path(directory)) if name.endswith(endings))
    except OSError:
        return []


def get(value: object, key: str, kind: type[T]) -> T:
    """Return a part of a JSON document; an empty one where there is none, or one of another kind."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, kind) else kind()
