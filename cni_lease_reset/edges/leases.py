"""host-local's leases, one file per address, and its lock. Source: containernetworking/plugins, ipam/host-local."""

import errno
import fcntl
import fnmatch
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from ..core.errors import describe
from ..core.model import Config, Lease, Network, Survey, Trouble
from ..core.verdict import Newest
from . import durable
from .lock import take
from .node import Node, utc

_LOCK: Final = "lock"
# Errors of a lease itself, damaged or protected, and not of its network.
OF_ONE_LEASE: Final = (errno.EUCLEAN, errno.EIO, errno.EPERM, errno.EACCES)
_LIMIT: Final = 4096  # a lease is about 70 bytes; what is longer is no torn lease


class Hold(ExitStack):
    """host-local's locks, each taken before its network is read, and held to the end of a ``with``: no ADD slips in."""

    def __init__(self, node: Node, *, patience: float = 0) -> None:
        super().__init__()
        self._node, self._patience = node, patience
        self.networks: dict[str, int] = {}  # directories of which the lock is ours
        self.failed: dict[str, OSError] = {}  # why it is not

    def take(self, data: int, name: str) -> int | None:
        """Open a network and lock it, or note why not."""
        locking = locked(data, name, patience=self._patience, rehearse=self._node.rehearsal)
        try:
            self.networks[name] = self.enter_context(locking)
        except OSError as error:
            self.failed[name] = error
        return self.networks.get(name)


def survey(node: Node, config: Config, hold: Hold | None = None) -> Survey:
    """Read each network, once, and those that are configured under ``hold``; none without a data directory.

    Raises ``OSError`` where that cannot be listed.
    """
    try:
        with durable.directory(config.data_dir, root=node.root) as data:
            names = sorted(os.listdir(data))
            listed = {name for pattern in config.networks for name in fnmatch.filter(names, pattern)}
            found = {name: look(data, name, hold if name in listed else None) for name in names}
    except FileNotFoundError:
        return Survey()
    networks = [each for each in found.values() if isinstance(each, Network)]
    return Survey(
        tuple(each for each in networks if each.name in listed),
        tuple(each for each in networks if each.name not in listed and each.leases),
        tuple(each for each in found.values() if isinstance(each, Trouble) and each.network in listed),
    )


def look(data: int, name: str, hold: Hold | None = None) -> Network | Trouble:
    """Read one network and count its leases, by address family and state; unlocked where the lock cannot be had."""
    try:
        with ExitStack() as stack, durable.named(name):
            held = None if hold is None else hold.take(data, name)
            files = tuple(_contents(stack.enter_context(durable.opened(data, name)) if held is None else held))
    except NotADirectoryError:  # that will not mend by itself
        return Trouble(name, "not a directory (a symbolic link is not followed)", again=False)
    except OSError as error:
        return Trouble(name, describe(error), again=True)
    inet = [_is_torn(content) for address, content, _ in files if ":" not in address]
    inet6 = [_is_torn(content) for address, content, _ in files if ":" in address]
    return Network(name, len(inet), len(inet6), sum(inet), sum(inet6), files)


def _contents(network: int) -> Iterator[tuple[str, bytes | None, float]]:
    """Yield each lease's address, content (``None``: it cannot be read) and time, but for what a DEL removes."""
    with os.scandir(network) as entries:
        names = [entry.name for entry in entries if is_address(entry.name) and entry.is_file(follow_symlinks=False)]
    for name in names:
        try:
            yield name, *durable.content(network, name, _LIMIT + 1)
        except OSError as error:
            if error.errno in OF_ONE_LEASE:
                yield name, None, 0.0
            elif error.errno != errno.ENOENT:
                raise


def newest(found: Survey) -> Newest | None:
    """Return the lease of a configured network that was written last."""
    dated = ((when, each.name, address) for each in found.networks for address, _, when in each.files)
    when, network, address = max(dated, default=(0.0, "", ""))
    return Newest(network, address, when, utc(when)) if when else None


def inventory(network: Network) -> tuple[Lease, ...]:
    """Parse the leases of a network, in the order of their addresses."""
    found = (parse(*each) for each in network.files)
    return tuple(sorted(found, key=lambda lease: (":" in lease.address, packed(lease.address))))


def parse(address: str, content: bytes | None, written: float) -> Lease:
    """Read a lease: the container id, and since host-local 0.8 a CRLF and the interface."""
    torn = _is_torn(content)
    if content is None or torn or len(content) > _LIMIT:
        return Lease(address, None, torn, written)
    return Lease(address, os.fsdecode(content.partition(b"\n")[0].strip()), torn, written)


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
def locked(data: int, name: str, *, create: bool = False, patience: float = 0, rehearse: bool = False) -> Iterator[int]:
    """Open a network and hold host-local's own lock on it; yields the directory's descriptor.

    Waits ``patience`` seconds for the lock; a rehearsal only sees whether it can be had. Raises ``BlockingIOError``
    while a plugin holds it, and ``OSError`` where there is no such directory.
    """
    with durable.opened(data, name, create=create) as network:
        if rehearse:
            with suppress(FileNotFoundError, PermissionError), _lock(network, 0, patience):
                pass
            yield network
        else:
            with _lock(network, os.O_CREAT, patience):  # as host-local does; and it is never removed
                yield network


@contextmanager
def _lock(network: int, create: int, patience: float) -> Iterator[None]:
    flags = os.O_RDONLY | create | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: it may be a FIFO
    lock = os.open(_LOCK, flags, 0o750, dir_fd=network)
    try:
        take(lock, patience)
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)  # a close alone would leave it with a child that was forked meanwhile
        os.close(lock)
