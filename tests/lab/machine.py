"""A machine of the lab: systemd as PID 1 in namespaces, a second a boot. It has no disk that could lose what was written."""

import os
import select
import signal
import socket
import struct
import subprocess
import uuid
from pathlib import Path
from typing import Final

POWER_ON: Final = Path(__file__).parent / "power-on"
# Its root, too: below a chroot that of its mount namespace is another.
_SEEN_BY: Final = ("--mount", "--pid", "--cgroup", "--net", "--uts", "--ipc", "--root", "--wd")
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


class Machine:
    """One at a time on each disk."""

    def __init__(self, disk: Path, layers: str) -> None:
        self.disk, self._layers = disk, layers
        self.boot_id = ""
        self._pid = 0
        self._power: subprocess.Popen[bytes] | None = None
        disk.mkdir(exist_ok=True)

    @property
    def root(self) -> Path:
        """Its files. While it is off there is only what it wrote itself, or somebody put there."""
        return Path(f"/proc/{self._pid}/root") if self._power else self.disk / "upper"

    def start(self) -> None:
        """Power on, and wait until systemd says that the boot is done."""
        self.boot_id = str(uuid.uuid4())
        (self.disk / "boot_id").write_text(f"{self.boot_id}\n")
        place = self.disk / "notify"
        place.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            notify.bind(str(place))
            command = ["setpriv", "--pdeathsig", "KILL", str(POWER_ON), str(self.disk), self._layers]
            self._power = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            self._pid = _ready(notify, self._power.pid)

    def wait_off(self) -> None:
        """Wait until its last process is gone."""
        assert self._power is not None
        self._power.wait()
        self._power = None

    def poweroff(self) -> None:
        """Shut down as ``systemctl poweroff`` does."""
        self.run("systemctl --no-block poweroff")
        self.wait_off()

    def crash(self) -> None:
        """Let the kernel kill everything at once: nobody gets to say anything."""
        os.kill(self._pid, signal.SIGKILL)
        self.wait_off()

    def is_on(self) -> bool:
        """Whether it has not gone off yet, of itself or by a command."""
        return self._power is not None and self._power.poll() is None

    def try_run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the shell inside, as root."""
        surroundings = ["env", "-i", "PATH=/usr/sbin:/usr/bin", "LANG=C.UTF-8"]
        command = ["nsenter", f"--target={self._pid}", *_SEEN_BY, *surroundings, "sh", "-euc", script]
        return subprocess.run(command, text=True, capture_output=True, check=False)

    def run(self, script: str) -> str:
        """Run a script inside that must succeed, and return what it prints."""
        done = self.try_run(script)
        assert done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def _ready(notify: socket.socket, power: int) -> int:
    """Wait until PID 1 says that it is, and return what it is called out here.

    The socket may be closed then: what PID 1 says to one that nobody reads would make it wait.
    """
    off = os.pidfd_open(power)
    try:
        poll = select.poll()
        poll.register(notify, select.POLLIN)
        poll.register(off, select.POLLIN)
        while notify.fileno() in (descriptor for descriptor, _ in poll.poll()):
            said, about, *_ = notify.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            if said.startswith(b"READY=1"):
                pid: int = _CREDENTIALS.unpack(about[0][2])[0]
                return pid
    finally:
        os.close(off)
    raise AssertionError("the machine went off before it was up")


def copy(disk: Path, to: Path) -> Path:
    """Copy a disk. That of a machine that is on becomes what a power cut of this moment would leave."""
    to.mkdir()
    subprocess.run(["cp", "--archive", disk / "upper", to], check=True)
    return to
