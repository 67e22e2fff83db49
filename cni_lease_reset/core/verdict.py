"""Marker, boot id and newest lease in, verdict out. Pure; the README's truth table is its test."""

from typing import assert_never

from .model import BootId, DamagedMarker, Judgement, Marker, NoMarker, Reading, State, Verdict


def judge(reading: Reading, boot_id: BootId, *, ran_before: bool, newest: tuple[float, str] = (0, "")) -> Judgement:
    """Tell how the boot before this one ended.

    ``ran_before``: /run says that ``boot`` ran under this kernel. ``newest``: when the last lease was written, in
    seconds since 1970, and which.
    """
    match reading:
        case Marker(boot_id=previous) if previous == boot_id:
            # The kernel never went down: a restart of the service, or a soft-reboot. Pods may live.
            return Judgement(Verdict.SAME_BOOT, "the marker was written under this very kernel", previous)
        case _ if ran_before:
            # A boot that failed and is started again, perhaps weeks later, under living pods.
            its = getattr(reading, "boot_id", None)
            return Judgement(Verdict.SAME_BOOT, "boot ran before under this very kernel", its)
        case Marker(state=State.CLEAN, boot_id=previous, written=written) if newest[0] > written:
            # A boot that we did not see: masked, an interpreter that does not start, a shutdown that was cancelled.
            return Judgement(Verdict.UNKNOWN, f"{newest[1]}, is newer than the clean mark of {reading.since}", previous)
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
