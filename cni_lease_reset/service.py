"""The sentence. Read this first.

At boot, before RKE2 starts: read the marker the last boot left (and use up a clean mark), decide how that boot ended,
set aside the leases it leaked, mark this boot as running, and say so in the journal. At shutdown, after RKE2 has
stopped: mark it clean.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from .core import events
from .core.errors import BusyError, ConfigError, InputOutputError, describe, printable
from .core.model import (
    About,
    BootId,
    ClearWhen,
    Config,
    DamagedMarker,
    Judgement,
    NoMarker,
    Outcome,
    Reading,
    Remark,
    Reset,
    Result,
    State,
    Verdict,
)
from .core.outcome import conclude
from .core.plan import draw_up
from .core.verdict import judge
from .edges import config, leases, marker, record
from .edges.journald import Journal
from .edges.lock import only_one
from .edges.node import RUNTIME_DIRECTORY, STATE_DIRECTORY, Node
from .edges.systemd import Manager


def boot(node: Node, manager: Manager, journal: Journal) -> Outcome:
    """Judge how the last boot ended, set aside what it leaked, mark this boot as running, and say so.

    With a node of which nothing may be changed it counts and says the same.
    Raises :class:`BusyError` if another of our programs is at work, and ``OSError`` where nothing could be judged.
    """
    began = time.monotonic_ns()
    with _the_moment(node), only_one(node, create=True):
        boot_id, judgement, remarks = _judge(node)  # a clean mark is used up here, before anything can fail
        settings = _settings(node)
        outcome = _clear(node, boot_id, judgement, settings, manager)
        outcome = _record(node, outcome)  # after the leases: a crash in between repeats a harmless reset
        outcome = outcome._replace(remarks=remarks + outcome.remarks, usec=(time.monotonic_ns() - began) // 1000)
        outcome = _remember(node, outcome)
        for entry in events.of_boot(outcome):  # telling is the least important act
            journal.send(entry)
        if isinstance(settings, Config) and outcome.reset is not None:
            from .edges import shelf

            for remark in shelf.prune(node, settings):
                journal.send(events.of_remark(remark))
    return outcome


@contextmanager
def _the_moment(node: Node) -> Iterator[None]:
    """See that /run knows of this run, also where it fails before it could judge: a later one may find living pods."""
    try:
        yield
    except BusyError:
        raise  # the other program is the one that runs
    except Exception:
        if record.read(node) is None:
            with suppress(OSError):  # what failed is the error to tell
                record.begin(node, node.boot_id())
        raise


def _judge(node: Node) -> tuple[BootId, Judgement, tuple[Remark, ...]]:
    reading = marker.read(node)
    try:
        boot_id = node.boot_id()
    except OSError as error:
        stuck = marker.take(node, reading, None)
        if stuck is None:
            raise
        both = f"{error.strerror}; and the clean mark cannot be used up: {stuck}"
        raise OSError(error.errno, both, error.filename) from error
    stuck = marker.take(node, reading, boot_id)
    remarks = [] if stuck is None else [Remark(About.MARKER_STUCK, f"The clean mark cannot be used up: {stuck}")]
    noted = record.read(node)
    if isinstance(noted, record.Unreadable):
        doubt = f"{RUNTIME_DIRECTORY}/boot cannot be read ({noted.why}): taken as if boot had run before"
        remarks.append(Remark(About.IGNORED, doubt))
    return boot_id, judge(reading, boot_id, ran_before=record.ran(noted, boot_id)), tuple(remarks)


def _settings(node: Node) -> Config | ConfigError:
    try:
        return config.read(node).config
    except ConfigError as error:
        return error


def _clear(
    node: Node, boot_id: BootId, judgement: Judgement, settings: Config | ConfigError, manager: Manager
) -> Outcome:
    """Set aside what is due, and tell what came of it; what fails is told, too."""
    reset = Reset()
    try:
        if judgement.verdict is not Verdict.SAME_BOOT:
            record.begin(node, boot_id)
        if isinstance(settings, ConfigError):
            return Outcome(boot_id, judgement, Result.MISCONFIGURED, str(settings))
        quiet = judgement.verdict in (Verdict.CLEAN, Verdict.SAME_BOOT) or settings.clear_when is ClearWhen.NEVER
        with leases.Hold(node) as hold:
            found = leases.survey(node, settings, None if quiet else hold)
            if quiet and draw_up(judgement.verdict, found.networks, settings):  # seldom: look again, under the locks
                found = leases.survey(node, settings, hold)
            steps = draw_up(judgement.verdict, found.networks, settings)
            if steps:
                from .edges import guard, setaside, shelf  # a boot that has nothing to set aside does not pay for them

                onto = shelf.Shelf(node, settings, boot_id, "; ".join(dict.fromkeys(step.why for step in steps)))
                rule = partial(guard.rule, node, settings, manager)
                reset = setaside.set_aside(steps, found.networks, hold, rule, onto)
    except OSError as error:
        return Outcome(boot_id, judgement, Result.FAILED, describe(error))
    return conclude(boot_id, judgement, settings, found, steps, reset)


def _record(node: Node, outcome: Outcome) -> Outcome:
    """Mark this boot as running, if all that was due is done; else the next boot must judge the same and try again."""
    done = outcome.result in (Result.CLEARED, Result.NOTHING_DUE)
    if not done or outcome.judgement.verdict is Verdict.SAME_BOOT:
        return outcome
    try:
        marker.record(node, State.RUNNING, outcome.boot_id)
    except OSError as error:
        return outcome._replace(result=Result.FAILED, why=f"the marker cannot be written: {describe(error)}")
    return outcome


def _remember(node: Node, outcome: Outcome) -> Outcome:
    """Keep the outcome under /run for ``status``; a second run under this kernel does not replace it."""
    if outcome.judgement.verdict is Verdict.SAME_BOOT and record.read(node) is not None:
        return outcome
    try:
        record.finish(node, outcome)
    except OSError as error:
        remark = Remark(About.IGNORED, f"What this boot did cannot be kept for status: {describe(error)}, ignoring")
        return outcome._replace(remarks=(*outcome.remarks, remark))
    return outcome


def shutdown(node: Node, manager: Manager, journal: Journal, *, force: bool = False) -> bool:
    """Mark this boot as clean if the system goes down, else change nothing; say which, and return it.

    Raises :class:`BusyError`, and ``OSError`` where the marker cannot be written.
    """
    boot_id = node.boot_id()
    try:
        with only_one(node):
            why_not = _not_clean(node, marker.read(node), boot_id, manager, journal, force=force)
            if why_not is None:
                marker.record(node, State.CLEAN, boot_id)
    except FileNotFoundError:
        why_not = "there is no marker, boot never ran here"
    journal.send(events.of_shutdown(marked=why_not is None, why=why_not or "the next boot keeps the leases"))
    return why_not is None


def _not_clean(
    node: Node, reading: Reading, boot_id: BootId, manager: Manager, journal: Journal, *, force: bool
) -> str | None:
    """Say why this shutdown must not be marked as clean: in doubt it is not."""
    if isinstance(reading, NoMarker):
        return "there is no marker, boot did not complete"
    if isinstance(reading, DamagedMarker) and reading.unread:
        path = printable(node.path(f"{STATE_DIRECTORY}/{marker.NAME}"), quoted=True)
        raise InputOutputError(f"{path} cannot be read and stays as it is: {reading.why}")
    if isinstance(reading, DamagedMarker):
        return f"it is damaged ({reading.why})"
    if reading.boot_id != boot_id:
        return "it is another boot's, for the boot service did not complete"
    if reading.state is State.CLEAN:
        return "it says clean already"
    if force:
        return None
    answer = manager.going_down()
    if answer.remark is not None:
        _say_once(node, journal, Remark(About.WITHOUT_DBUS, answer.remark))
    if answer.value is None:
        return "systemd cannot be asked whether the system goes down"
    return None if answer.value else "the system is not going down, only this service stops"


def _say_once(node: Node, journal: Journal, remark: Remark) -> None:
    """Say it, unless ``boot`` said the same of this boot: where pystemd is not packaged, once is enough."""
    noted = record.read(node)
    if not (isinstance(noted, Outcome) and remark in noted.remarks):
        journal.send(events.of_remark(remark))
