"""Marker, boot id and newest lease in, verdict out. Pure; the README's truth table is its test."""

from typing import NamedTuple, assert_never

from .errors import printable
from .model import BootId, DamagedMarker, Judgement, Marker, NoMarker, Reading, State, Verdict


class Newest(NamedTuple):
    """The lease that was written last, of all that are configured."""

    network: str
    address: str
    written: float  # seconds since 1970
    when: str  # the same, for people


def judge(reading: Reading, boot_id: BootId, *, ran_before: bool, newest: Newest | None = None) -> Judgement:
    """Tell how the boot before this one ended. ``ran_before``: /run says that ``boot`` ran under this kernel."""
    match reading:
        case Marker(boot_id=previous) if previous == boot_id:
            # The kernel never went down: a restart of the service, or a soft-reboot. Pods may live.
            return Judgement(Verdict.SAME_BOOT, "the marker was written under this very kernel", previous)
        case _ if ran_before:
            # A boot that failed and is started again, perhaps weeks later, under living pods.
            return Judgement(
                Verdict.SAME_BOOT, "boot ran before under this very kernel", getattr(reading, "boot_id", None)
            )
        case Marker(state=State.CLEAN, boot_id=previous, written=written) if newest and newest.written > written:
            # A boot that we did not see: masked, an interpreter that does not start, a shutdown that was cancelled.
            lease = f"lease {newest.address} of {printable(newest.network)}, written {newest.when}"
            return Judgement(Verdict.UNKNOWN, f"{lease}, is newer than the clean mark of {reading.since}", previous)
        case Marker(state=State.CLEAN, boot_id=previous):
            # Written by ExecStop after RKE2 had stopped, while the system went down.
            return Judgement(Verdict.CLEAN, "the last boot marked its shutdown as clean", previous)
        case Marker(boot_id=previous):
            # Nobody got to replace it: power cut, reset, panic, watchdog, or a forced power-off.
            return Judgement(Verdict.UNCLEAN, "the last boot never got to mark its shutdown as clean", previous)
        case NoMarker():
            # Or removed on purpose. A clean shutdown cannot be proven.
            cause = "a first boot, or the last one could not do what was due or mark its end (its journal says which)"
            return Judgement(Verdict.UNKNOWN, f"there is no marker: {cause}")
        case DamagedMarker(why=why):
            # Somebody else wrote it, or the disk lied: the same.
            return Judgement(Verdict.DAMAGED, f"the marker cannot be believed: {why}")
        case _:
            assert_never(reading)
