"""Files that come and go while they are read: what is gone is nothing, what cannot be read is a doubt."""

import errno
import os
from typing import Final

from ..core.errors import printable

# Ended meanwhile, or never there; a file where a directory would be, or the reverse; a name that no file can have.
_ABSENT: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})


class Sight:
    """How much can be seen; ``caged``: no look into other processes; ``lenient``: what is denied is no doubt."""

    def __init__(self, *, caged: bool, lenient: bool = False) -> None:
        self.caged = caged
        self._lenient = lenient
        self._doubts: dict[str, str] = {}  # one of a kind: they come by the hundred

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why somebody may live of whom nothing was seen: sentences."""
        return tuple(self._doubts.values())

    def doubt(self, kind: str, sentence: str) -> None:
        """Note a doubt, unless there is one of its kind."""
        self._doubts.setdefault(kind, sentence)

    def excuses(self, error: OSError) -> bool:
        """Whether an error is no doubt, for this was denied to somebody who only shows what he sees."""
        return self._lenient and error.errno in _DENIED

    def failed(self, path: str, error: OSError, *, advice: str = "") -> None:
        """Make a doubt of an error, where it is one."""
        if error.errno not in _ABSENT and not self.excuses(error):
            advised = advice if error.errno in _DENIED else ""
            self.doubt(os.path.basename(path), f"{printable(path, quoted=True)}: {error.strerror}{advised}")

    def read(self, path: str, *, advice: str = "") -> bytes:
        """Read a file whole; one that is not there is empty, as is what a process leaves behind that ends."""
        try:
            return content(path)
        except OSError as error:
            self.failed(path, error, advice=advice)
            return b""

    def names(self, directory: str) -> list[str]:
        """List a directory; one that is not there is empty."""
        try:
            return os.listdir(directory)
        except OSError as error:
            self.failed(directory, error)
            return []


def content(path: str) -> bytes:
    """Read a file of /proc, which knows no size. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while part := os.read(descriptor, 1 << 16):
            content += part
        return content
    finally:
        os.close(descriptor)
