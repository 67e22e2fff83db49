"""The sentence. Read this first.

At boot, before RKE2 starts: take the marker that the last boot left, decide how that boot ended, set aside the leases
it leaked, mark this boot as running, and say so in the journal. At shutdown, after RKE2 has stopped: mark it clean.
"""

import time
from contextlib import suppress
from functools import partial

from .core import events
from .core.errors import BusyError, ConfigError, InputOutputError, describe
from .core.findings import MessageId, Outcome, Remark, Reset, Result
from .core.model import BootId, Config, DamagedMarker, Judgement, Marker, NoMarker, Reading, State, Verdict
from .core.outcome import conclude
from .core.plan import draw_up
from .core.verdict import judge
from .edges import config, leases, lock, marker, record
from .edges.journald import Journal
from .edges.node import RUNTIME_DIRECTORY, Node
from .edges.systemd import Manager


def boot(node: Node, manager: Manager, journal: Journal) -> Outcome:
    """Take the marker, judge how the last boot ended, set aside what it leaked, mark this boot as running, and say so.

    With a node of which nothing may be changed it counts and says the same.
    Raises :class:`BusyError` if another of our programs is at work, and ``OSError`` where nothing could be judged.
    """
    began = time.monotonic_ns()
    boot_id, noted = _boot_id(node), record.read(node)
    ran_before = noted.ran(boot_id)
    unnoted = None if ran_before else record.write(node, boot_id)
    reading = marker.read(node)
    judgement = judge(reading, boot_id, ran_before=ran_before)
    if judgement.verdict is Verdict.SAME_BOOT:
        outcome = _run_again(node, boot_id, judgement, reading, noted)
        return _tell(node, journal, outcome, began, keep=not ran_before)
    stuck = _take(node)  # before anything can fail or be waited for: nothing older can speak for this boot
    with lock.only_one(node, create=True, patience=lock.OURS):
        if unnoted is None:
            outcome, settings = _clear(node, boot_id, reading, manager)
        else:
            outcome, settings = Outcome(boot_id, judgement, Result.FAILED, describe(unnoted)), None
        outcome = _record(node, outcome)  # after the leases: a crash in between repeats a harmless reset
        outcome = _tell(node, journal, outcome._replace(remarks=stuck + outcome.remarks), began, keep=True)
        if settings is not None and outcome.reset is not None:
            from .edges import shelf

            for remark in shelf.prune(node, settings):
                journal.send(events.of_remark(remark))
    return outcome


def _boot_id(node: Node) -> BootId:
    """Without it nothing can be judged, and no mark can be this boot's. Raises ``OSError``."""
    try:
        return node.boot_id()
    except OSError as error:
        stuck = "".join(f"; and {remark.text}" for remark in _take(node))
        raise OSError(error.errno, f"{error.strerror}{stuck}", error.filename) from error


def _take(node: Node) -> tuple[Remark, ...]:
    try:
        marker.take(node)
    except OSError as error:
        return (Remark(MessageId.MARKER_STUCK, f"The marker of an earlier boot cannot be removed: {describe(error)}"),)
    return ()


def _run_again(node: Node, boot_id: BootId, judgement: Judgement, reading: Reading, noted: record.Record) -> Outcome:
    """Do nothing but see that the marker says "running" where this boot was done: this unit is up to mark its end.

    Without our lock, for nobody else writes the marker: who restarts the unit beside ``recover`` shall have it, too.
    """
    state = reading.state if isinstance(reading, Marker) and reading.boot_id == boot_id else None
    outcome = noted.of(boot_id)
    done = state is not None or (outcome is not None and outcome.done)
    remarks = []
    if noted.unread is not None:
        doubt = f"{RUNTIME_DIRECTORY}/boot cannot be read ({noted.unread}): taken as if boot had run before"
        remarks.append(Remark(MessageId.IGNORED, doubt))
    try:
        if not done and not isinstance(reading, NoMarker):
            marker.take(node)
        elif done and state is not State.RUNNING:
            marker.record(node, State.RUNNING, boot_id)
    except OSError as error:
        remarks.append(Remark(MessageId.IGNORED, f"The marker stays as it is: {describe(error)}, ignoring"))
    undone = "this boot has not done all that was due; unless it is still at work, the next one makes up for it"
    why = "only the first run under a kernel sets leases aside" if done else undone
    return Outcome(boot_id, judgement, Result.NOTHING_DUE, why, remarks=tuple(remarks))


def _clear(node: Node, boot_id: BootId, reading: Reading, manager: Manager) -> tuple[Outcome, Config | None]:
    """Set aside what is due, and tell what came of it, and by which settings; what fails is told, too."""
    judgement = judge(reading, boot_id, ran_before=False)
    marked_clean = judgement.verdict is Verdict.CLEAN
    reset = Reset()
    try:
        settings = config.read(node)
        with leases.Hold(node) as hold:
            found = leases.survey(node, settings, hold, dated=marked_clean)
            if marked_clean:
                judgement = judge(reading, boot_id, ran_before=False, newest=leases.newest(found))
            steps = draw_up(judgement, found.networks, settings)
            if steps:
                from .edges import guard, setaside, shelf  # a boot that has nothing to set aside does not pay for them

                why = "; ".join(dict.fromkeys(step.why for step in steps))
                onto = shelf.Shelf(node, settings, boot_id, why, hold.remarks)
                refusal = partial(guard.refusal, node, settings, manager, hold.remarks)
                reset = setaside.set_aside(steps, found.networks, hold, refusal, onto)
    except ConfigError as error:
        return Outcome(boot_id, judgement, Result.MISCONFIGURED, str(error)), None
    except OSError as error:
        return Outcome(boot_id, judgement, Result.FAILED, describe(error)), None
    return conclude(boot_id, judgement, settings, found, steps, reset), settings


def _record(node: Node, outcome: Outcome) -> Outcome:
    """Mark this boot as running, if all that was due is done; without a mark the next one makes up for it."""
    if not outcome.done:
        return outcome
    try:
        marker.record(node, State.RUNNING, outcome.boot_id)
    except OSError as error:
        return outcome._replace(result=Result.FAILED, why=f"the marker cannot be written: {describe(error)}")
    return outcome


def _tell(node: Node, journal: Journal, outcome: Outcome, began: int, *, keep: bool) -> Outcome:
    """Keep the outcome under /run for ``status``, and write it down; telling is the least important act."""
    outcome = outcome._replace(usec=(time.monotonic_ns() - began) // 1000)
    if keep and (error := record.write(node, outcome.boot_id, outcome)) is not None:
        remark = Remark(MessageId.IGNORED, f"What this boot did cannot be kept for status: {describe(error)}, ignoring")
        outcome = outcome._replace(remarks=(*outcome.remarks, remark))
    for entry in (*map(events.of_remark, outcome.remarks), events.verdict(outcome)):
        journal.send(entry)
    return outcome


def shutdown(node: Node, manager: Manager, journal: Journal, *, force: bool = False) -> bool:
    """Mark this boot as clean if the system goes down; say what was done, and return whether it is marked.

    Else its "running" goes: nobody will be there to mark the end, and the next boot must not tell of a crash that never
    was. Raises :class:`BusyError`, and ``OSError`` and :class:`InputOutputError` where the marker cannot be dealt with.
    """
    began = time.monotonic()
    boot_id = node.boot_id()
    why_not = _not_running(marker.read(node), boot_id)
    if why_not is None:
        down, silent = (True, None) if force else manager.going_down()
        if down:
            try:
                with lock.only_one(node, patience=lock.SHUTDOWN - (time.monotonic() - began)):
                    marker.record(node, State.CLEAN, boot_id)
            except (BusyError, OSError):
                with suppress(OSError):  # the first error is the one to tell
                    marker.take(node)
                raise
        else:  # in doubt, too
            marker.take(node)  # without our lock, which may be held for long: nobody else writes the marker
            unsure = f"systemd cannot be asked whether the system goes down ({silent or 'there is none'})"
            why_not = unsure if down is None else "the system is not going down, only this service stops"
            why_not += '; the marker no longer says "running", a start of this unit brings it back'
    journal.send(events.of_shutdown(marked=why_not is None, why=why_not or "the next boot keeps the leases"))
    return why_not is None


def _not_running(reading: Reading, boot_id: BootId) -> str | None:
    """Say why there is nothing to mark."""
    if isinstance(reading, NoMarker):
        return "there is no marker, boot could not do all that was due, or somebody removed it"
    if isinstance(reading, DamagedMarker) and reading.unread:
        raise InputOutputError(f"the marker cannot be read and stays as it is: {reading.why}")
    if isinstance(reading, DamagedMarker):
        return f"the marker is damaged ({reading.why})"
    if reading.boot_id != boot_id:
        return "the marker is another boot's"
    return "it says clean already" if reading.state is State.CLEAN else None
