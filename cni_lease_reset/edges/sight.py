"""Files that come and go while they are read: what is gone is nothing, what cannot be read is a doubt."""

import errno
import os
from typing import Final

from ..core.errors import printable

# Ended meanwhile, or never there; a file where a directory would be, or the reverse; a name that no file can have.
_ABSENT: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})


class Sight:
    """How much can be seen, and what is in doubt.

    ``caged``: no environment is read and no namespace entered, as ``boot`` may not. ``lenient``: what is denied to us
    is no doubt, for whoever only shows it.
    """

    def __init__(self, *, caged: bool, lenient: bool = False) -> None:
        self.caged = caged
        self._lenient = lenient
        self.doubts: dict[str, str] = {}  # sentences by their kind, one of each: they come by the hundred

    def doubt(self, kind: str, sentence: str, error: OSError | None = None) -> None:
        """Note why somebody may live of whom nothing was seen; it is none if it is lenient and the error a denial."""
        if not (self._lenient and error is not None and error.errno in _DENIED):
            self.doubts.setdefault(kind, sentence)

    def failed(self, path: str, error: OSError, *, advice: str = "") -> None:
        """Make a doubt of an error, where it is one."""
        if error.errno not in _ABSENT:
            advised = advice if error.errno in _DENIED else ""
            self.doubt(os.path.basename(path), f"{printable(path, quoted=True)}: {error.strerror}{advised}", error)

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
    with open(path, "rb", buffering=0) as file:
        return file.read()
