"""``status``: how the last boot ended, what this boot did, and how things stand. Changes nothing."""

import json
import os
from typing import NamedTuple

from . import bootfacts, config, durable, leases, marker, runtime, shelf
from .errors import ConfigError, describe, printable
from .model import BootId, Config, DamagedMarker, Marker, NoMarker, Outcome, Reading, Survey
from .node import STATE_DIRECTORY, Node, set_aside_directory

VERSION = 1  # of the JSON; changed when a name goes or changes its meaning


class Report(NamedTuple):
    """All that ``status`` shows; ``unread`` says what could not be looked at."""

    boot_id: BootId | None
    record: Outcome | runtime.Began | runtime.Unreadable | None
    reading: Reading
    survey: Survey
    resets: tuple[tuple[str, int], ...]  # name and lease count, newest first
    unread: tuple[str, ...]


def gather(node: Node) -> Report:
    """Look at everything, and go on past what cannot be read."""
    unread: list[str] = []
    settings = Config()
    try:
        settings = config.read(node).config
    except ConfigError as error:
        unread.append(f"{error} (shown with the defaults)")
    boot_id: BootId | None = None
    reading = _marker(node, unread)
    survey = Survey()
    resets: tuple[tuple[str, int], ...] = ()
    try:
        boot_id = bootfacts.boot_id(node)
    except OSError as error:
        unread.append(describe(error))
    try:
        survey = leases.survey(node, settings)
    except OSError as error:
        unread.append(describe(error))
    try:
        resets = _resets(node, settings)
    except OSError as error:
        unread.append(describe(error))
    unread += [f"network {printable(each.network)}: {each.why}" for each in survey.troubles]
    return Report(boot_id, runtime.read(node), reading, survey, resets, tuple(unread))


def _marker(node: Node, unread: list[str]) -> Reading:
    try:
        with durable.directory(STATE_DIRECTORY, root=node.root) as state:
            return marker.read(state)
    except FileNotFoundError:
        return NoMarker()
    except OSError as error:
        unread.append(describe(error))
        return DamagedMarker("its directory cannot be read")


def _resets(node: Node, settings: Config) -> tuple[tuple[str, int], ...]:
    path = set_aside_directory(settings.data_dir)
    try:
        with durable.directory(path, root=node.root) as above:
            return tuple((name, _size(node.path(f"{path}/{name}"))) for name in reversed(shelf.resets(above)))
    except FileNotFoundError:
        return ()


def _size(reset: str) -> int:
    return sum(len(os.listdir(network.path)) for network in os.scandir(reset) if network.is_dir(follow_symlinks=False))


def as_json(report: Report) -> str:
    """Write the report for programs; the names are documented in the README."""
    record = report.record
    document = {
        "version": VERSION,
        "boot_id": report.boot_id,
        "boot": runtime.as_json(record) if isinstance(record, Outcome) else None,
        "marker": _marker_json(report.reading),
        "networks": [
            {"name": each.name, "ipv4": each.inet, "ipv6": each.inet6, "torn": each.torn}
            for each in report.survey.networks
        ],
        "not_configured": [{"name": each.name, "leases": each.leases} for each in report.survey.unlisted],
        "resets": [{"name": name, "leases": number} for name, number in report.resets],
        "unread": list(report.unread),
    }
    return json.dumps(document, indent=2) + "\n"


def _marker_json(reading: Reading) -> dict[str, str]:
    match reading:
        case Marker(state=state, boot_id=boot_id, since=since):
            return {"state": state, "boot_id": boot_id, "since": since}
        case NoMarker():
            return {"state": "none"}
    return {"state": "damaged", "reason": reading.why}


def as_text(report: Report) -> str:
    """Write the report for people, at 80 columns."""
    rows = [
        *_record_rows(report),
        ("Marker", _marker_text(report.reading, report.boot_id)),
    ]
    lines = [f"{label:<12}{text}" for label, text in rows]
    lines += ["", f"{'Network':<36}{'IPv4':>8}{'IPv6':>8}{'Torn':>8}"]
    lines += [f"{printable(n.name):<36}{n.inet:>8}{n.inet6:>8}{n.torn:>8}" for n in report.survey.networks]
    lines += [] if report.survey.networks else ["(no leases: none of the configured networks exists)"]
    if report.survey.unlisted:
        lines.append(f"not configured: {', '.join(leases.quoted(each) for each in report.survey.unlisted)}")
    lines += ["", f"{'Reset':<44}{'Leases':>8}"] if report.resets else []
    lines += [f"{name:<44}{number:>8}" for name, number in report.resets]
    lines += [""] if report.unread else []
    lines += [f"Not read: {each}" for each in report.unread]
    return "".join(f"{line}\n" for line in lines)


def _record_rows(report: Report) -> tuple[tuple[str, str], ...]:
    match report.record:
        case None:
            return (("Last boot", "not judged: boot has not run since this kernel started"),)
        case runtime.Began(boot_id=boot_id) if boot_id == report.boot_id:
            return (("Last boot", "not judged: boot began and did not end, or is still at work"),)
        case runtime.Unreadable(why=why):
            return (("Last boot", f"not known: /run/cni-lease-reset/boot: {why}"),)
        case Outcome() as outcome if outcome.boot_id == report.boot_id:
            counts = f"{outcome.found} found, {outcome.cleared} set aside, {outcome.kept} kept, {outcome.torn} torn"
            return (
                ("Last boot", f"{outcome.judgement.verdict}: {outcome.judgement.why}"),
                ("This boot", f"{outcome.result}: {outcome.why}"),
                ("", counts + (f", in {outcome.reset}" if outcome.reset else "")),
            )
        case _:
            return (("Last boot", "not judged: the record under /run is of another boot"),)


def _marker_text(reading: Reading, this: BootId | None) -> str:
    match reading:
        case Marker(state=state, boot_id=boot_id, since=since):
            whose = "this boot" if boot_id == this else f"another boot, {boot_id[:8]}"
            return f"{state} since {since} ({whose})"
        case NoMarker():
            return "none: the next boot will set every lease aside"
    return f"damaged: {reading.why}"
