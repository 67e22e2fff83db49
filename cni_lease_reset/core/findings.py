"""What is found, due and done, in words. Values only, as in ``model``."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from .model import BootId, Judgement


class Stuck(NamedTuple):
    """A lease that could not be read or moved, while others of its network could."""

    network: str
    address: str
    why: str


class Network(NamedTuple):
    """A network's directory as it was read: its leases, counted by address family, and the torn ones among them."""

    name: str
    inet: int = 0
    inet6: int = 0
    torn_inet: int = 0
    torn_inet6: int = 0
    found: tuple["Lease", ...] = ()

    @property
    def leases(self) -> int:
        """All of them."""
        return self.inet + self.inet6

    @property
    def torn(self) -> int:
        """Those that are empty or hold only NUL bytes: no DEL can ever release them."""
        return self.torn_inet + self.torn_inet6

    @property
    def unread(self) -> tuple[Stuck, ...]:
        """Those that cannot be read, and why: they may be torn."""
        unread = (lease for lease in self.found if lease.unread)
        return tuple(Stuck(self.name, lease.address, f"unreadable, {lease.unread}") for lease in unread)


class Lease(NamedTuple):
    """One lease as it lies on the disk."""

    address: str
    owner: str | None  # a container id; None where the lease is torn, cannot be read, or is none of host-local's
    torn: bool
    written: float = 0.0  # seconds since 1970
    unread: str = ""  # why it cannot be read


class Trouble(NamedTuple):
    """Why a network was not dealt with."""

    network: str
    why: str
    again: bool  # worth trying again at the next boot; what will not mend by itself is not


class Survey(NamedTuple):
    """What lies in the data directory."""

    networks: tuple[Network, ...] = ()
    unlisted: tuple[Network, ...] = ()  # they hold leases, and no pattern of the configuration names them
    troubles: tuple[Trouble, ...] = ()


class Step(NamedTuple):
    """One network's part of a plan: every lease is due, or the torn ones."""

    network: str
    why: str
    torn_only: bool = False


class About(StrEnum):
    """What a remark is about; each has a message id of its own."""

    MARKER_STUCK = "marker-stuck"
    WITHOUT_DBUS = "without-dbus"
    NETWORK_SKIPPED = "network-skipped"
    NETWORK_UNLISTED = "network-unlisted"
    LEASE_STUCK = "lease-stuck"
    NO_RUNTIME = "no-runtime"
    IGNORED = "ignored"


class Remark(NamedTuple):
    """Something survived that an operator should know."""

    about: About
    text: str


class Living(NamedTuple):
    """Who lives of those that were asked for."""

    owners: frozenset[str] = frozenset()  # those whose id was found
    addresses: Mapping[str, int | None] = MappingProxyType({})  # those set, and a process of that namespace, if any
    pods: tuple[str, ...] = ()  # what says that some pod lives, whichever: sentences
    doubts: tuple[str, ...] = ()  # why somebody may live who was not found: sentences; empty: sure


class Reset(NamedTuple):
    """What was set aside, and where: lease counts by network."""

    name: str | None = None  # the folder under set-aside/; None where nothing was moved
    cleared: tuple[tuple[str, int], ...] = ()
    troubles: tuple[Trouble, ...] = ()
    stuck: tuple[Stuck, ...] = ()
    refusal: str | None = None  # why the guard said no
    remarks: tuple[Remark, ...] = ()


class Result(StrEnum):
    """What a run of ``boot`` came to."""

    CLEARED = "cleared"
    NOTHING_DUE = "nothing-due"
    REFUSED = "refused"
    FAILED = "failed"
    MISCONFIGURED = "misconfigured"


class NetworkOutcome(NamedTuple):
    """One network after ``boot``: how many leases there were, how many of them were set aside, how many were torn."""

    name: str
    found: int
    cleared: int
    torn: int

    @property
    def kept(self) -> int:
        """The leases that stayed where they were."""
        return self.found - self.cleared


class Outcome(NamedTuple):
    """All that a run of ``boot`` has to tell."""

    boot_id: BootId
    judgement: Judgement
    result: Result
    why: str  # of the result: what was due and why, or what stood against it
    reset: str | None = None
    networks: tuple[NetworkOutcome, ...] = ()
    unlisted: tuple[tuple[str, int], ...] = ()  # networks that no pattern names, and their leases
    remarks: tuple[Remark, ...] = ()
    usec: int = 0

    @property
    def done(self) -> bool:
        """Whether all that was due was done."""
        return self.result in (Result.CLEARED, Result.NOTHING_DUE)

    @property
    def total(self) -> NetworkOutcome:
        """The sums over all networks."""
        each = self.networks
        return NetworkOutcome("", sum(e.found for e in each), sum(e.cleared for e in each), sum(e.torn for e in each))
