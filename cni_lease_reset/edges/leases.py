"""host-local's leases, one file per address, and its lock. Source: containernetworking/plugins, ipam/host-local."""

import errno
import fnmatch
import os
import socket
from contextlib import ExitStack
from typing import Final

from ..core.errors import describe, printable
from ..core.findings import Lease, MessageId, Network, Remark, Survey, Trouble
from ..core.model import Config
from . import durable
from .lock import hold
from .node import Node, utc

# Errors of a lease itself, damaged or protected, and not of its network.
OF_ONE_LEASE: Final = (errno.EUCLEAN, errno.EIO, errno.EPERM, errno.EACCES)
# A link or a directory in place of a network or of its lock: the same at every boot.
_NEVER_MENDS: Final = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR)
BUSY: Final = "busy: another process holds host-local's lock"
_NO_LOCKS: Final = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP)  # what a file system says that has none
_LIMIT: Final = 4096  # a lease is about 70 bytes; what is longer is no torn lease


class Hold(ExitStack):
    """host-local's own locks, each taken before its network is read, and held to the end; a rehearsal only looks."""

    def __init__(self, node: Node, *, patience: float = 0, create: bool = False) -> None:
        super().__init__()
        self._node, self._patience, self._create = node, patience, create
        self.networks: dict[str, int] = {}  # directories of which the lock is ours
        self.failed: dict[str, Trouble] = {}  # why it is not
        self.remarks: list[Remark] = []

    def take(self, data: int, name: str) -> int | None:
        """Open a network and lock it, or note why not."""
        try:
            with ExitStack() as stack:
                network = stack.enter_context(durable.opened(data, name, create=self._create))
                self._lock(network, name, stack)
                self.networks[name] = network
                self.push(stack.pop_all())
        except OSError as error:
            self.failed[name] = _trouble(name, error)
        return self.networks.get(name)

    def _lock(self, network: int, name: str, stack: ExitStack) -> None:
        # For writing, or NFS gives none. O_CREAT as host-local does; and it is never removed. O_NONBLOCK: maybe a FIFO.
        access = os.O_RDONLY if self._node.rehearsal else os.O_RDWR | os.O_CREAT
        try:
            lock = os.open("lock", access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o750, dir_fd=network)
        except (FileNotFoundError, PermissionError):
            if self._node.rehearsal:
                return
            raise
        stack.callback(os.close, lock)
        try:
            hold(lock, stack, patience=self._patience, rehearsal=self._node.rehearsal)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            why = f"for its file system has none ({error.strerror})"  # nor has a plugin
            text = f"Network {printable(name)} was dealt with without host-local's lock, {why}, ignoring"
            self.remarks.append(Remark(MessageId.IGNORED, text))


def survey(node: Node, config: Config, hold: Hold | None = None, *, dated: bool = True) -> Survey:
    """Read each network, once, and those that are configured under ``hold``; none without a data directory.

    Without ``dated`` the leases tell no time. Raises ``OSError`` where that cannot be listed.
    """
    try:
        with durable.directory(config.data_dir, root=node.root) as data:
            names = sorted(os.listdir(data))
            listed = {name for pattern in config.networks for name in fnmatch.filter(names, pattern)}
            found = {name: look(data, name, hold if name in listed else None, dated=dated) for name in names}
    except FileNotFoundError:
        return Survey()
    networks = [each for each in found.values() if isinstance(each, Network)]
    return Survey(
        tuple(each for each in networks if each.name in listed),
        tuple(each for each in networks if each.name not in listed and each.found),
        tuple(each for each in found.values() if isinstance(each, Trouble) and each.network in listed),
    )


def look(data: int, name: str, hold: Hold | None = None, *, dated: bool = True) -> Network | Trouble:
    """Read one network; unlocked where the lock cannot be had."""
    try:
        with ExitStack() as stack, durable.named(name):
            held = None if hold is None else hold.take(data, name)
            network = stack.enter_context(durable.opened(data, name)) if held is None else held
            return Network(name, _read(network, dated=dated))
    except OSError as error:
        return _trouble(name, error)


def _trouble(name: str, error: OSError) -> Trouble:
    """Say why a network cannot be read or held, and whether that will mend by itself."""
    why = BUSY if isinstance(error, BlockingIOError) else describe(error)
    if isinstance(error, NotADirectoryError):
        why = "not a directory (a symbolic link is not followed)"
    return Trouble(name, why, again=error.errno not in _NEVER_MENDS)


def _read(network: int, *, dated: bool) -> tuple[Lease, ...]:
    """Read each lease, once, but for what a DEL removes meanwhile; their times cost another call each."""
    found = []
    with os.scandir(network) as entries:
        names = [entry.name for entry in entries if is_address(entry.name) and _is_file(entry)]
    for name in names:
        try:
            content = durable.content(network, name, _LIMIT + 1)
            written = os.stat(name, dir_fd=network, follow_symlinks=False).st_mtime if dated else 0.0
            found.append(parse(name, content, written))
        except OSError as error:
            if error.errno in OF_ONE_LEASE:
                found.append(Lease(name, None, torn=False, unread=error.strerror or "?"))
            elif error.errno != errno.ENOENT:
                raise
    return tuple(found)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:
        return True  # what cannot be looked at cannot be opened either, and that says why


def newest(found: Survey) -> tuple[float, str]:
    """Tell when the last lease of a configured network was written, in seconds since 1970, and which it is."""
    dated = ((lease.written, each.name, lease.address) for each in found.networks for lease in each.found)
    when, network, address = max(dated, default=(0.0, "", ""))
    return when, f"lease {address} of {printable(network)}, written {utc(when)}"


def parse(address: str, content: bytes, written: float) -> Lease:
    """Read a lease: the container id, and since host-local 0.8 a CRLF and the interface.

    Torn is what a power cut left: host-local never fsyncs, so nothing of it, or NUL bytes.
    """
    if len(content) > _LIMIT:
        return Lease(address, None, torn=False, written=written)
    if not content.strip(b"\0"):
        return Lease(address, None, torn=True, written=written)
    return Lease(address, content.partition(b"\n")[0].strip().decode("utf-8", "surrogateescape"), False, written)


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
