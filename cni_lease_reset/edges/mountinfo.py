"""The mounts of a process, as the kernel lists them. Source: proc_pid_mountinfo(5)."""

import re
from typing import NamedTuple


class Mount(NamedTuple):
    """One line of mountinfo."""

    root: str  # what of the file system is mounted; of a namespace its kind and inode number, net:[4026532008]
    point: str
    kind: str
    options: tuple[str, ...]  # of the file system itself


def parse(text: str) -> tuple[Mount, ...]:
    """Read mountinfo: of the fields the fourth and the fifth; after a lone hyphen type, source and options."""
    found = []
    for line in text.split("\n"):  # not splitlines(): a path may hold a form feed
        head, _, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if len(fields) > 4 and len(rest) > 2:
            options = tuple(map(_unescaped, rest[2].split(",")))
            found.append(Mount(fields[3], _unescaped(fields[4]), rest[0], options))
    return tuple(found)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text) if "\\" in text else text
