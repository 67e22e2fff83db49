"""A machine whose processes and directories are files below a temporary directory, and real processes linked into it."""

import os
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cni_lease_reset.edges.node import Node

ROOT: Final = (0, 0, 0, 0)  # real, effective, saved and file system user
NOBODY: Final = (65534,) * 4
SETUID: Final = (65534, 0, 0, 0)
_WAIT: Final = "echo; read -r _"


class Machine:
    """What ``look`` sees of a machine; PID 1 is there from the start."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.node = Node(str(root))
        self.proc = root / "proc"
        self._last = 1000
        self.process("/sbin/init", pid=1)
        (self.proc / "1/comm").write_text("systemd\n")
        (root / "run/systemd/system").mkdir(parents=True)

    def process(
        self,
        *command: str | bytes,
        pid: int | None = None,
        user: Sequence[int] = ROOT,
        nspid: str | None = "7",
        environment: Iterable[str] = (),
        namespace_of: int | None = None,
    ) -> int:
        """Start a process, in a network namespace of its own or that of another one."""
        pid = pid or self._next()
        entry = self.proc / str(pid)
        entry.mkdir(parents=True)
        nested = "" if nspid is None else f"NSpid:\t{nspid}\n"
        uid = "\t".join(map(str, user))
        (entry / "status").write_text(
            f"Name:\tx\nState:\tS (sleeping)\nUid:\t{uid}\nGid:\t0\t0\t0\t0\n{nested}Threads:\t1\n"
        )
        (entry / "cmdline").write_bytes(b"".join(os.fsencode(each) + b"\0" for each in command))
        (entry / "environ").write_bytes(b"".join(os.fsencode(each) + b"\0" for each in ("PATH=/bin", *environment)))
        if namespace_of is None:
            (entry / "net").mkdir()
            self.addresses(pid)
        else:
            (entry / "net").symlink_to(f"../{namespace_of}/net")
        return pid

    def addresses(self, pid: int, *addresses: str) -> None:
        """Set the addresses of a process's namespace."""
        inet = [each for each in addresses if ":" not in each]
        inet6 = [socket.inet_pton(socket.AF_INET6, each).hex() for each in addresses if ":" in each]
        leaves = "".join(f"     |-- {each}\n        /32 link UNICAST\n        /32 host LOCAL\n" for each in inet)
        other = "     |-- 10.99.0.0\n        /24 link UNICAST\n     |-- 127.0.0.0\n        /8 host LOCAL\n"
        (self.proc / f"{pid}/net/fib_trie").write_text(f"Main:\n  +-- 0.0.0.0/0 3 0 5\n{other}{leaves}Local:\n{leaves}")
        (self.proc / f"{pid}/net/if_inet6").write_text("".join(f"{each} 02 80 00 80     eth0\n" for each in inet6))

    def real(self, pid: int | str) -> int:
        """Let a real process be one of this machine."""
        (self.proc / str(pid)).symlink_to(f"/proc/{pid}")
        return int(pid)

    def mounts(self, *points: str | Path) -> None:
        """Let PID 1 see what is mounted there now, and nothing else: tests run side by side."""
        seen = [_escaped(str(point)) for point in points]
        lines = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split(" ")[4] in seen]
        self.file("proc/1/mountinfo", "".join(f"{line}\n" for line in lines))
        if not (self.proc / "1/root").is_symlink():
            (self.proc / "1/root").symlink_to("/")

    def file(self, path: str, content: str = "") -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file

    def _next(self) -> int:
        self._last += 1
        return self._last


def _escaped(path: str) -> str:
    return path.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def network_namespace(name: str, *addresses: str) -> Iterator[str]:
    """A real network namespace, mounted, with addresses; yields where."""
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        for address in addresses:
            ip("-n", name, "address", "add", f"{address}/{128 if ':' in address else 32}", "dev", "lo")
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@contextmanager
def living(*command: str, user: int = 0) -> Iterator[int]:
    """A real process with any command line, that lives until it is let go; yields its pid."""
    with _waiting([command[0], "-c", _WAIT, *command[1:]], executable="/bin/sh", user=user) as process:
        yield process


@contextmanager
def pause_in(namespace: str) -> Iterator[int]:
    """A real process in a network namespace, as a pod's first one; yields its pid."""
    with _waiting(["nsenter", f"--net={namespace}", "sh", "-c", _WAIT]) as process:
        yield process


@contextmanager
def _waiting(command: list[str], *, executable: str | None = None, user: int = 0) -> Iterator[int]:
    """Start a shell that waits for its standard input to end: it goes, too, when the test dies."""
    with subprocess.Popen(
        command, executable=executable, user=user, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)  # it is there now
        yield process.pid
        process.communicate()


def become_nobody() -> None:
    """Give up every right, for good: in a child."""
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
