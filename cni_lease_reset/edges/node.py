"""The node as a value: where everything lies below a root."""

import os
import time
from typing import Final, NamedTuple

from ..core.model import BootId
from . import durable

STATE_DIRECTORY: Final = "/var/lib/cni/cni-lease-reset"
RUNTIME_DIRECTORY: Final = "/run/cni-lease-reset"
CONFIG_FILE: Final = "/etc/cni-lease-reset/config.yaml"


class Node(NamedTuple):
    """A machine, or a tree that looks like one: ``root`` comes before every path."""

    root: str = "/"
    rehearsal: bool = False  # --dry-run: whatever writes leaves it undone, and what counts goes on

    def path(self, absolute: str) -> str:
        """Prefix a path with the root."""
        return self.root.rstrip("/") + absolute

    @property
    def is_this_machine(self) -> bool:
        """Whether this is the running system, the one with D-Bus, a journal and living pods."""
        return self.root == "/"

    def boot_id(self) -> BootId:
        """Read the id of the running kernel's boot. Raises ``OSError`` where /proc does not tell."""
        path = self.path("/proc/sys/kernel/random/boot_id")
        with durable.named(path), open(path, encoding="utf-8") as file:
            return BootId(file.read().strip())

    def uptime(self) -> float:
        """Read how long this machine is up, in seconds. Raises ``OSError`` where /proc does not tell."""
        path = self.path("/proc/uptime")
        with durable.named(path), open(path, encoding="utf-8") as file:
            return float(file.read().partition(" ")[0])

    @property
    def trusted_users(self) -> frozenset[int]:
        """The user ids whose files count as the administrator's."""
        return frozenset({0} if self.is_this_machine else {0, os.geteuid()})


def utc(seconds: float | None = None) -> str:
    """Write a time, or now, as the marker does."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "at no time that a calendar knows"


def set_aside_directory(data_dir: str) -> str:
    """Where the leases of ``data_dir`` are set aside: beside it, for a rename must stay on one file system."""
    return f"{os.path.dirname(data_dir)}/cni-lease-reset/set-aside"
