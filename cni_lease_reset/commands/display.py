"""How ``status`` shows a report: for programs, and for people at 80 columns."""

import json
import textwrap
from datetime import datetime
from typing import Final

from ..core.errors import printable
from ..core.model import BootId, Marker, NoMarker, Outcome, Reading
from ..edges import record
from .pools import Pool
from .screen import Colour, Screen, local
from .status import OnShelf, Report, Stock

VERSION: Final = 1  # of the JSON; changed when a name goes or changes its meaning
_WIDTH: Final = 80
_BAR: Final = 40
_HALF, _FULL = 50, 90  # percent
_MANY: Final = 1_000_000  # addresses: from here on a pool is not going to be full


def as_json(report: Report) -> str:
    """Write the report for programs; the names are documented in the README."""
    noted = report.record
    document = {
        "version": VERSION,
        "boot_id": report.boot_id,
        "boot": record.as_json(noted) if isinstance(noted, Outcome) else None,
        "marker": _marker_json(report.reading),
        "networks": [_stock_json(each) for each in report.stocks],
        "not_configured": [{"name": each.name, "leases": each.leases} for each in report.unlisted],
        "resets": [_reset_json(each) for each in report.resets],
        "pending": report.pending is not None,
        "attention": report.attention,
        "unread": report.unread,
    }
    return json.dumps(document, indent=2) + "\n"


def _stock_json(stock: Stock) -> dict[str, object]:
    network = stock.network
    return {
        "name": network.name,
        "ipv4": network.inet,
        "ipv6": network.inet6,
        "torn": network.torn,
        "live": stock.live,
        "leaked": stock.leaked,
        "pools": [pool._asdict() for pool in stock.pools],
    }


def _reset_json(reset: OnShelf) -> dict[str, object]:
    made = _made(reset)
    time = None if made is None else f"{made:%Y-%m-%dT%H:%M:%SZ}"
    return {"name": reset.name, "leases": reset.leases, "time": time, "reason": reset.reason}


def _marker_json(reading: Reading | None) -> dict[str, str]:
    match reading:
        case Marker():
            return reading._asdict()
        case NoMarker():
            return {"state": "none"}
        case None:
            return {"state": "unread"}
    return {"state": "damaged", "reason": reading.why}


def _made(reset: OnShelf) -> datetime | None:
    """When a reset was made; its name says so, in UTC."""
    try:
        return datetime.strptime(reset.name.split("-")[1], "%Y%m%dT%H%M%S%z")
    except ValueError:
        return None


def as_text(report: Report, screen: Screen) -> str:
    """Write the report for people."""
    rows = [*_record_rows(report), ("Marker", _marker_text(report.reading, report.boot_id))]
    lines = [line for label, text in rows for line in _wrapped(f"{label:<12}", text)]
    lines += ["", f"{'Network':<40}{'IPv4':>8}{'IPv6':>8}{'Torn':>8}{'Live':>8}{'Leaked':>8}"]
    lines += [line for stock in report.stocks for line in _stock_lines(stock, screen)]
    if not report.stocks:
        nothing = "no leases: none of the configured networks exists"
        lines.append(f"({'see below what could not be read' if report.unread else nothing})")
    if report.unlisted:
        counts = ", ".join(f"{printable(each.name)} {each.leases}" for each in report.unlisted)
        lines += _wrapped("not configured: ", counts)
    lines += ["", f"{'Reset':<28}{'Leases':>6}  {'When':<24}Reason"] if report.resets else []
    lines += [line for reset in report.resets for line in _reset_lines(reset)]
    for label, texts in (("Attention: ", report.attention), ("Not read: ", report.unread)):
        lines += [""] if texts else []
        lines += [line for text in texts for line in _painted(label, text, screen)]
    return "".join(f"{line}\n" for line in lines)


def _wrapped(label: str, text: str) -> list[str]:
    indent = " " * len(label)
    return textwrap.wrap(label + text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _painted(label: str, text: str, screen: Screen) -> list[str]:
    first, *rest = _wrapped(label, text)
    return [screen.paint(label, Colour.WARN) + first.removeprefix(label), *rest]


def _record_rows(report: Report) -> tuple[tuple[str, str], ...]:
    match report.record:
        case Outcome() as done if done.boot_id == report.boot_id:
            counts = f"{done.found} found, {done.cleared} set aside, {done.kept} kept, {done.torn} torn"
            return (
                ("Last boot", f"{done.judgement.verdict}: {done.judgement.why}"),
                ("This boot", f"{done.result}: {printable(done.why)}"),
                ("", counts + (f", in {done.reset}" if done.reset else "")),
            )
        case None:
            why = "not judged: boot has not run since this kernel started"
        case record.Began(boot_id=boot_id) if boot_id == report.boot_id:
            why = "not judged: boot began and did not end, or is still at work"
        case record.Unreadable(why=unread):
            why = f"not known: /run/cni-lease-reset/boot: {unread}"
        case _:
            why = "not judged: the record under /run is of another boot"
    return (("Last boot", why),)


def _marker_text(reading: Reading | None, this: BootId | None) -> str:
    match reading:
        case Marker(state=state, boot_id=boot_id, since=since):
            whose = "this boot" if boot_id == this else f"another boot, {boot_id[:8]}"
            return f"{state} since {since} ({whose})"
        case NoMarker():
            return "none: the next boot cannot tell how this one ended"
        case None:
            return "not known: its directory cannot be read"
    return f"damaged: {reading.why}"


def _stock_lines(stock: Stock, screen: Screen) -> list[str]:
    network, live, leaked = stock.network, stock.live, stock.leaked
    owners = f"{'?' if live is None else live:>8}{'?' if leaked is None else leaked:>8}"
    counts = f"{network.inet:>8}{network.inet6:>8}{network.torn:>8}{owners}"
    name = printable(network.name)
    lines = [f"{name:<40}{counts}"] if len(name) <= 40 else [name, f"{'':<40}{counts}"]
    return lines + [_pool_line(pool, screen) for pool in stock.pools]


def _pool_line(pool: Pool, screen: Screen) -> str:
    family = pool.family.replace("ip", "IP")
    if pool.size >= _MANY:
        return f"  {family}  {pool.leases} of more than a million"
    percent = pool.leases * 100 // pool.size
    colour = Colour.GOOD if percent < _HALF else Colour.WARN if percent < _FULL else Colour.BAD
    bar = screen.paint(screen.bar(pool.leases, pool.size, _BAR), colour)
    return f"  {family}  {bar}  {pool.leases} of {pool.size}, {percent} % full"


def _reset_lines(reset: OnShelf) -> list[str]:
    made = _made(reset)
    when = "?" if made is None else local(made.timestamp())
    row = f"{reset.name:<28}{reset.leases:>6}  {when[:16] + when[19:]:<24}"  # minutes will do
    return [line.rstrip() for line in textwrap.wrap(row + reset.reason, _WIDTH, subsequent_indent=" " * len(row))]
