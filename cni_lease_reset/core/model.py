"""The words of this program. Values only: no effects, no decisions.

Named tuples and not data classes: importing ``dataclasses`` would cost each boot more than all other work together.
"""

from enum import StrEnum
from typing import Final, NamedTuple, NewType, TypeAlias

BootId = NewType("BootId", str)  # /proc/sys/kernel/random/boot_id: a new UUID with each start of a kernel

LEASE_RESET: Final = "cni-lease-reset"  # the command, our folders, and our name in the journal
UNIT: Final = "cni-lease-reset.service"


class State(StrEnum):
    """What a marker says."""

    RUNNING = "running"
    CLEAN = "clean"


class Marker(NamedTuple):
    """A marker as it was read: which boot wrote it, and how far that boot came."""

    state: State
    boot_id: BootId
    since: str  # UTC, for people; no decision looks at it
    written: float = 0.0  # the file's own time, in seconds since 1970: a newer lease disproves a clean mark


class NoMarker(NamedTuple):
    """No marker is there: a first start, or somebody removed it."""


class DamagedMarker(NamedTuple):
    """A marker is there, and it cannot be believed."""

    why: str
    unread: bool = False  # what it says is not known: it may say "clean"


Reading: TypeAlias = Marker | NoMarker | DamagedMarker


class Verdict(StrEnum):
    """How the last boot ended."""

    UNKNOWN = "unknown"
    DAMAGED = "damaged"
    UNCLEAN = "unclean"
    CLEAN = "clean"
    SAME_BOOT = "same-boot"


class Judgement(NamedTuple):
    """A verdict, and the sentence that an operator would accept for it."""

    verdict: Verdict
    why: str
    previous: BootId | None = None

    @property
    def brief(self) -> str:
        """The verdict in two words."""
        if self.verdict is Verdict.UNKNOWN:
            return "no marker" if self.previous is None else "disproved clean mark"
        others = {Verdict.DAMAGED: "damaged marker", Verdict.SAME_BOOT: "same boot"}
        return others.get(self.verdict, f"{self.verdict} shutdown")


class ClearWhen(StrEnum):
    """After which verdicts every lease is due."""

    UNCLEAN = "unclean"
    ALWAYS = "always"
    NEVER = "never"


_RUNTIMES: Final = tuple(f"{each}.service" for each in ("rke2-server", "rke2-agent", "k3s", "k3s-agent", "kubelet"))


class Config(NamedTuple):
    """The settings; the defaults are those of a file that says nothing."""

    networks: tuple[str, ...] = ("k8s-pod-network", "cbr0")
    data_dir: str = "/var/lib/cni/networks"
    clear_when: ClearWhen = ClearWhen.UNCLEAN
    max_kept_leases: int | None = 110
    runtime_units: tuple[str, ...] = _RUNTIMES
    keep_resets: int = 3
