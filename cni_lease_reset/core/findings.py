"""What is found, due and done, in words. Values only, as in ``model``."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from .model import BootId, Judgement


class Lease(NamedTuple):
    """One lease as it lies on the disk."""

    address: str
    owner: str | None  # a container id; None where the lease is torn, cannot be read, or is none of host-local's
    torn: bool  # empty or only NUL bytes: no DEL can ever release it
    written: float = 0.0  # seconds since 1970
    unread: str = ""  # why it cannot be read


class Network(NamedTuple):
    """A network's directory as it was read."""

    name: str
    found: tuple[Lease, ...] = ()


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


class MessageId(StrEnum):
    """One for each kind of event, for good: monitoring matches them."""

    CLEARED = "8e2f1f0e7a6d4f0c9f0f6e3a5a0c1b01"
    NOTHING_DUE = "3c5b9f5d2c8e4a7fb1d06d0f4be2a902"
    SAME_BOOT = "b7d3a1c94e5f4d1c8a27f35e6c9d0e03"
    REFUSED = "5f0a6c2d9b134c7ea8e14d7b2f3c8a04"
    FAILED = "d41e8b7f3a2c4596bc0d9e8f1a7b6c05"
    MISCONFIGURED = "92c7e4a05d1b4f38a6f3b0c8d7e2f106"
    BUSY = "e60b3d8c7f2a49158d4c1a9e5b6f7007"
    MARKER_STUCK = "1a9d5c3e8b7f4602957e2d4c6f8a0b08"
    WITHOUT_DBUS = "7f4c2b1a9e8d45638b5a0f3d6c7e1909"
    NETWORK_SKIPPED = "c83a7e5f1d2b49609e4f8a6b5c0d7f10"
    NETWORK_UNLISTED = "4d6f9b2a8c1e4735a0b7c5e3f9d81211"
    IGNORED = "a5e8c1d7f3b24960b8d2e6f4071c9a12"
    UNEXPECTED = "6b2d8f4a0c9e41738f5e1c7a3d9b0e13"
    MARKED_CLEAN = "f19c5e7b3d8a4260a4c6e8f0b2d71314"
    NOT_MARKED = "0e7a3c9f5b1d48629d8b4f6e2c0a7515"
    RECOVERED = "b94d2e7c1f6a4380a5d3c8e1f7b09216"
    NOT_RECOVERED = "3f8a6c0d9e2b4571b7e4f1a8c5d36017"
    RESTORED = "d05b7f3e8c9a4126938f2d6b1e4c7a18"
    LEASE_STUCK = "2c7e9a4f1b6d4835a1c0f8d3e5b72619"
    NO_RUNTIME = "8b1f6d3a9c5e4270b4e7a2c9d0f18320"


class Remark(NamedTuple):
    """Something survived that an operator should know."""

    about: MessageId
    text: str


class Living(NamedTuple):
    """Who lives of those that were asked for."""

    owners: frozenset[str] = frozenset()  # those whose id was found
    addresses: Mapping[str, int | None] = {}  # those set, and a process of that namespace, if any
    pods: tuple[str, ...] = ()  # what says that some pod lives, whichever: sentences
    doubts: tuple[str, ...] = ()  # why somebody may live who was not found: sentences; empty: sure


class Moved(NamedTuple):
    """What came of moving a network's leases, to the shelf or back."""

    number: int = 0  # of those that went
    stuck: Mapping[str, str] = {}  # those that stayed, each for a reason of its own
    trouble: str | None = None  # why the rest stayed, too
    taken: int = 0  # of those that stayed because their addresses have leases now


class Reset(NamedTuple):
    """What was set aside, and where."""

    name: str | None = None  # the folder under set-aside/; None where nothing was moved
    moved: Mapping[str, Moved] = {}  # by network
    troubles: Sequence[Trouble] = ()  # networks that could not be held
    refusal: str | None = None  # why the guard said no
    remarks: Sequence[Remark] = ()


class Result(StrEnum):
    """What a run of ``boot`` came to."""

    CLEARED = "cleared"
    NOTHING_DUE = "nothing-due"
    REFUSED = "refused"
    FAILED = "failed"
    MISCONFIGURED = "misconfigured"


class Counts(NamedTuple):
    """How many leases ``boot`` found, how many it set aside, how many stayed, and how many were torn."""

    found: int = 0
    cleared: int = 0
    kept: int = 0
    torn: int = 0


class Outcome(NamedTuple):
    """All that a run of ``boot`` has to tell."""

    boot_id: BootId
    judgement: Judgement
    result: Result
    why: str  # of the result: what was due and why, or what stood against it
    reset: str | None = None
    networks: Mapping[str, Counts] = {}
    unlisted: tuple[tuple[str, int], ...] = ()  # networks that no pattern names, and their leases
    remarks: tuple[Remark, ...] = ()
    usec: int = 0

    @property
    def done(self) -> bool:
        """Whether all that was due was done."""
        return self.result in (Result.CLEARED, Result.NOTHING_DUE)

    @property
    def total(self) -> Counts:
        """The sums over all networks."""
        return Counts(*(sum(each) for each in zip(*self.networks.values(), strict=True)))
