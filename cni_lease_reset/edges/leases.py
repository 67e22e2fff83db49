"""host-local's leases: one file per address in a directory per network, and a lock of host-local's own.

Source: containernetworking/plugins, ``plugins/ipam/host-local/backend/disk``.
"""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Final

from ..core.errors import describe
from ..core.model import Config, Lease, Network, Selection, Step, Survey, Trouble
from . import durable
from .node import Node

_LOCK: Final = "lock"
# Errors of a lease itself, damaged or protected, and not of its network.
OF_ONE_LEASE: Final = (errno.EUCLEAN, errno.EIO, errno.EPERM, errno.EACCES)
_LIMIT: Final = 4096  # a lease is about 70 bytes; what is longer is no torn lease


def survey(node: Node, config: Config) -> Survey:
    """Count the leases of each network. A missing data directory is an empty one.

    Raises ``OSError`` where the data directory is there and cannot be listed.
    """
    try:
        with durable.directory(config.data_dir, root=node.root) as data:
            found = [_look(data, name, config) for name in sorted(os.listdir(data))]
    except FileNotFoundError:
        return Survey()
    listed = [each for each in found if isinstance(each, Network) and is_listed(each.name, config)]
    unlisted = [each for each in found if isinstance(each, Network) and each.leases and each not in listed]
    return Survey(tuple(listed), tuple(unlisted), tuple(each for each in found if isinstance(each, Trouble)))


def is_listed(network: str, config: Config) -> bool:
    """Whether a name or pattern of the configuration names this network."""
    return any(fnmatchcase(network, pattern) for pattern in config.networks)


def _look(data: int, name: str, config: Config) -> Network | Trouble | None:
    """Count one network; what nobody named and is no directory is none of our business."""
    listed = is_listed(name, config)
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=data, follow_symlinks=False).st_mode):
            return not_a_network(name) if listed else None
        network = durable.subdirectory(data, name)
        try:
            return count(network, name)
        finally:
            os.close(network)
    except OSError as error:
        return Trouble(name, describe(error), again=True) if listed else None


def not_a_network(name: str) -> Trouble:
    """Say that a symbolic link or a file stands in a network's place; that will not mend by itself."""
    return Trouble(name, "not a directory (a symbolic link is not followed)", again=False)


def count(network: int, name: str) -> Network:
    """Count the leases of an open network directory, by address family and state."""
    inet = inet6 = torn_inet = torn_inet6 = 0
    for address, torn in _states(network):
        if ":" in address:
            inet6 += 1
            torn_inet6 += torn
        else:
            inet += 1
            torn_inet += torn
    return Network(name, inet, inet6, torn_inet, torn_inet6)


def names(network: int, step: Step) -> list[str]:
    """List the leases of an open network directory that a step means."""
    match step.selection:
        case Selection.ALL:
            return _names(network)
        case Selection.TORN:
            return [address for address, torn in _states(network) if torn]
    return [lease.address for lease in read(network) if lease.is_leaked(step.living)]


def _names(network: int) -> list[str]:
    with os.scandir(network) as entries:
        return [entry.name for entry in entries if is_address(entry.name) and entry.is_file(follow_symlinks=False)]


def _contents(network: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield each lease's address and content, ``None`` where that cannot be read; what a DEL removes is left out."""
    for name in _names(network):
        try:
            yield name, durable.content(network, name, _LIMIT + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in OF_ONE_LEASE:
                raise
            yield name, None


def _states(network: int) -> Iterator[tuple[str, bool]]:
    """Yield each lease and whether it is torn."""
    return ((name, _is_torn(content)) for name, content in _contents(network))


def read(network: int) -> Iterator[Lease]:
    """Read each lease."""
    return (parse(name, content) for name, content in _contents(network))


def inventory(data: int, name: str) -> tuple[tuple[Lease, float], ...]:
    """Read a network's leases in the order of their addresses, each with when it was written, in seconds."""
    network = durable.subdirectory(data, name)
    try:
        found = [(lease, _written(network, lease.address)) for lease in read(network)]
    finally:
        os.close(network)
    return tuple(sorted(found, key=lambda each: (":" in each[0].address, packed(each[0].address))))


def _written(network: int, name: str) -> float:
    try:
        return os.stat(name, dir_fd=network, follow_symlinks=False).st_mtime
    except FileNotFoundError:  # a DEL came in between
        return 0.0


def parse(name: str, content: bytes | None) -> Lease:
    """Read a lease: the container id, and since host-local 0.8 a CRLF and the interface."""
    if content is None or len(content) > _LIMIT:
        return Lease(name, owner=None, torn=False)
    torn = _is_torn(content)
    return Lease(name, None if torn else os.fsdecode(content.partition(b"\n")[0].strip()), torn)


def _is_torn(content: bytes | None) -> bool:
    """Whether a power cut took the content; host-local never fsyncs, so nothing is left of it, or NUL bytes."""
    return content is not None and len(content) <= _LIMIT and not content.strip(b"\0")


def is_address(name: str) -> bool:
    """Whether a file name is an IP address, and so the file a lease."""
    try:
        packed(name)
    except (OSError, UnicodeEncodeError):
        return False
    return True


def packed(address: str) -> bytes:
    """Return an address as bytes, which sort by number. Raises ``OSError``, and ``UnicodeEncodeError``."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


@contextmanager
def locked(data: int, name: str, *, create: bool = False, rehearsal: bool = False) -> Iterator[int]:
    """Open a network and hold host-local's own lock on it, without waiting; yields the directory's descriptor.

    A rehearsal only sees whether the lock can be had. Raises ``BlockingIOError`` while a plugin holds it, and
    ``OSError`` where there is no such directory.
    """
    network = durable.subdirectory(data, name, create=create)
    try:
        lock = _lock(network, create=not rehearsal)
        try:
            if rehearsal and lock is not None:
                fcntl.flock(lock, fcntl.LOCK_UN)
            yield network
        finally:
            if lock is not None:
                os.close(lock)
    finally:
        os.close(network)


def _lock(network: int, *, create: bool) -> int | None:
    """Take host-local's lock, made where missing, as host-local does, and never removed."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: it may be a FIFO
    try:
        lock = os.open(_LOCK, flags | (os.O_CREAT if create else 0), 0o750, dir_fd=network)
    except (FileNotFoundError, PermissionError):
        if create:
            raise
        return None  # not there, or not for us to look at
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
