"""Network namespaces: the addresses set in those of processes, and in those that only a mount keeps."""

import errno
import os
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from ..core.errors import printable
from .leases import packed
from .mountinfo import Mount, parse
from .sight import Sight

_NETWORK: Final = 0x40000000  # CLONE_NEWNET: the os module has it only since it has setns
_OURSELVES: Final = "/proc/thread-self"  # never below a root: the kernel tells where we are, and we did enter


def mounted(sight: Sight, proc: str) -> list[Mount]:
    """List the network namespaces that PID 1 sees mounted, whether processes are in them or not."""
    found = parse(os.fsdecode(sight.read(f"{proc}/1/mountinfo")))
    return [mount for mount in found if mount.kind == "nsfs" and mount.root.startswith("net:[")]


class Addresses:
    """Which of the addresses asked for are set in a namespace, each with a process of it, where it has one."""

    def __init__(self, sight: Sight, wanted: Collection[str]) -> None:
        self.found: dict[str, int | None] = {}
        self._sight = sight
        # As they are spelled in if_inet6, and in fib_trie.
        self._wanted = {each: packed(each).hex().encode() if ":" in each else each.encode() for each in wanted}
        self._keys = frozenset(self._wanted.values())
        self._seen: set[int] = set()  # inode numbers of fib_trie: one within a namespace, different between two

    def look(self, net: str, process: int | None) -> None:
        """Look into the namespace that a ``/proc/<pid>/net`` shows, unless that was done."""
        trie = f"{net}/fib_trie"
        try:
            inode = os.stat(trie).st_ino
            if inode in self._seen:
                return
            leaves = self._sight.read(trie).split(b"|-- ")[1:]
            inet = {leaf.partition(b"\n")[0] for leaf in leaves if b"/32 host LOCAL" in leaf}
            inet6 = {line[:32] for line in self._sight.read(f"{net}/if_inet6").splitlines()}
            local = self._keys & (inet | inet6)
            for address, key in self._wanted.items() if local else ():
                if key in local:
                    self.found.setdefault(address, process)
            # A process that ends meanwhile has no if_inet6, just as without IPv6: then the next one is asked.
            if os.stat(trie).st_ino == inode:
                self._seen.add(inode)
        except OSError as error:
            self._sight.failed(trie, error)

    def enter(self, mounts: Collection[Mount], proc: str) -> None:
        """Enter each mounted namespace and look there; the thread comes back to its own.

        Below another root than ``/`` the paths lead nowhere, unless ``/proc/1/root`` there does: a doubt.
        """
        entered: set[str] = set()
        failed: dict[str, OSError] = {}
        home = os.open(f"{_OURSELVES}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for mount in mounts:
                if mount.root in entered:
                    continue
                try:
                    _enter(f"{proc}/1/root{mount.point}", mount.root)
                except OSError as error:
                    failed[mount.root] = error
                else:
                    entered.add(mount.root)
                    self.look(f"{_OURSELVES}/net", None)
        finally:
            with suppress(OSError):  # who may not enter has not left
                _setns(home)
            os.close(home)
        for mount in mounted(self._sight, proc) if failed else ():  # what is gone by now had ended
            why = None if mount.root in entered else failed.get(mount.root)
            if why is not None:
                denied = why.errno in (errno.EACCES, errno.EPERM)
                hint = "run as root, with CAP_SYS_ADMIN and CAP_SYS_PTRACE" if denied else "another mount may cover it"
                place = f"the network namespace mounted at {printable(mount.point, quoted=True)}"
                self._sight.doubt("nsfs", f"{place} cannot be entered: {why.strerror} ({hint})", why)


def _enter(path: str, name: str) -> None:
    """Enter the namespace mounted at a path, and make sure that it is this one. Raises ``OSError``."""
    namespace = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _setns(namespace)
    finally:
        os.close(namespace)
    if os.readlink(f"{_OURSELVES}/ns/net") != name:
        raise OSError(errno.ENOENT, "it is another one", path)


def _setns(namespace: int) -> None:
    getattr(os, "setns", _setns_of_libc)(namespace, _NETWORK)  # os.setns is new in Python 3.12


def _setns_of_libc(namespace: int, kind: int) -> None:
    try:
        import ctypes

        if ctypes.CDLL(None, use_errno=True).setns(namespace, kind) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except (ImportError, MemoryError) as error:  # MemoryDenyWriteExecute=
        raise OSError(errno.ENOSYS, f"Python cannot call setns(2): {error}") from error
