"""Writes that must survive a power cut, and directories opened without following links. The only fsync."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_THROUGH: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # needs no right to list it
# O_NONBLOCK: a FIFO somebody put in a file's place must not hold up the boot.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class NotAFileError(OSError):
    """Something else than a regular file of a bearable size stands in its place."""


@contextmanager
def directory(path: str, *, root: str = "/", create: bool = False, through: bool = False) -> Iterator[int]:
    """Open ``path`` below ``root`` and yield its descriptor; no component of ``path`` may be a symbolic link.

    With ``create`` missing directories are made (0755). With ``through`` the descriptor serves to reach files by name
    only, which needs no right to list them. Raises ``OSError`` that names the component it failed at.
    """
    with ExitStack() as stack:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        seen, names = root.rstrip("/"), [name for name in path.split("/") if name]
        for left, name in zip(range(len(names), 0, -1), names, strict=True):
            seen = f"{seen}/{name}"
            try:
                fd = stack.enter_context(opened(fd, name, create=create, through=through or left > 1))
            except OSError as error:
                what = "Not a directory, or a symbolic link" if error.errno == errno.ENOTDIR else error.strerror
                raise OSError(error.errno, what, seen) from error
        with named(seen):
            yield fd


@contextmanager
def opened(parent: int, name: str, *, create: bool = False, through: bool = False) -> Iterator[int]:
    """Do the same for one directory of ``parent``; a symbolic link is "Not a directory"."""
    flags = _THROUGH if through else _DIRECTORY
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
        fd = os.open(name, flags, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def named(name: str, *, always: bool = False) -> Iterator[None]:
    """Name the file in the error of a call that knows only its descriptor.

    With ``always`` whatever name an error has: that of a temporary file, or below a descriptor, tells nobody anything.
    """
    try:
        yield
    except OSError as error:
        if always or error.filename is None or isinstance(error.filename, int):
            error.filename, error.filename2 = name, None
        raise


def content(parent: int, name: str, limit: int) -> bytes:
    """Return at most ``limit`` bytes of what was listed as a regular file just now: there may be thousands."""
    fd = os.open(name, _READ, dir_fd=parent)
    try:
        return os.read(fd, limit)
    except OSError as error:  # not with named(), which takes as long as the read
        error.filename = name
        raise
    finally:
        os.close(fd)


def read(name: str, limit: int, *, parent: int | None = None) -> tuple[bytes, os.stat_result]:
    """Return a file of at most ``limit`` bytes and its status; what else stands in its place is not even opened.

    A link is followed where no ``parent`` is given: whoever may write there is root. Raises :class:`NotAFileError` too.
    """
    if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=parent is None).st_mode):
        raise NotAFileError(errno.EINVAL, "not a regular file", name)
    fd = os.open(name, _READ & ~os.O_NOFOLLOW if parent is None else _READ, dir_fd=parent)
    with named(name), open(fd, "rb") as file:
        content, status = file.read(limit + 1), os.fstat(fd)
    if len(content) > limit:
        raise NotAFileError(errno.EFBIG, f"longer than {limit >> 10} KiB", name)
    return content, status


def replace(parent: int, name: str, content: bytes) -> None:
    """Replace a file whole: after a power cut it holds the old content or the new, and once this returns the new."""
    temporary = f"{name}.new"
    with suppress(OSError):  # where it stays, the next line says so
        os.unlink(temporary, dir_fd=parent)  # left by a crash: nobody else writes here
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=parent)
    try:
        with named(temporary), open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(fd, 0o644)  # whatever the umask: status is for everybody
            os.fsync(fd)  # or the rename may commit before the data, and the next boot finds it empty
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)  # the switch itself
    except OSError:
        with suppress(OSError):  # the first error is the one to tell; what stays is removed by the next write
            os.unlink(temporary, dir_fd=parent)
        raise
    with named(name):
        os.fsync(parent)  # or the crash may undo the rename


def remove(parent: int, name: str) -> None:
    """Remove a file for good; needs no space on the disk."""
    os.unlink(name, dir_fd=parent)
    with named(name):
        os.fsync(parent)  # or the crash may bring it back
