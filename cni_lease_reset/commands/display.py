"""How ``status`` shows a report: for programs, and for people at 80 columns."""

import json
from datetime import datetime
from typing import Final

from ..core.errors import printable
from ..core.findings import Result
from ..core.model import BootId, Marker, NoMarker, Reading
from ..edges import record
from .pools import Pool
from .screen import bar, local, wrapped
from .status import Report, Stock

VERSION: Final = 1  # of the JSON; changed when a name goes or changes its meaning
_MANY: Final = 1_000_000  # addresses: from here on a pool is not going to be full


def as_json(report: Report) -> str:
    """Write the report for programs; docs/operating.md has the names."""
    outcome = report.record.of(report.boot_id)
    document = {
        "version": VERSION,
        "boot_id": report.boot_id,
        "config_valid": report.config_valid,
        "boot": None if outcome is None else record.as_json(outcome),
        "marker": _marker(report.reading, report.boot_id)[0],
        "networks": [each._asdict() | {"pools": [pool._asdict() for pool in each.pools]} for each in report.stocks],
        "not_configured": [{"name": each.name, "leases": len(each.found)} for each in report.unlisted],
        "resets": [each._asdict() for each in report.resets],
        "pending": report.pending is not None,
        "attention": report.attention,
        "unread": report.unread,
    }
    return json.dumps(document, indent=2) + "\n"


def as_text(report: Report) -> str:
    """Write the report for people."""
    rows = [*_record_rows(report), ("Marker", _marker(report.reading, report.boot_id)[1])]
    lines = [line for label, text in rows for line in wrapped(f"{label:<12}{text}", indent=12)]
    lines += ["", f"{'Network':<40}{'IPv4':>8}{'IPv6':>8}{'Torn':>8}{'Live':>8}{'Leaked':>8}"]
    lines += [line for stock in report.stocks for line in _stock_lines(stock)]
    if not report.stocks:
        nothing = "no leases: none of the configured networks exists"
        lines.append(f"({'see below what could not be read' if report.unread else nothing})")
    if report.unlisted:
        counts = ", ".join(f"{printable(each.name)} {len(each.found)}" for each in report.unlisted)
        lines += wrapped(f"not configured: {counts}", indent=16)
    lines += ["", f"{'Reset':<28}{'Leases':>6}  {'When':<24}Reason"] if report.resets else []
    for reset in report.resets:
        when = "?" if reset.time is None else local(datetime.fromisoformat(reset.time).timestamp())
        row = f"{reset.name:<28}{reset.leases:>6}  {when[:16] + when[19:]:<24}"  # minutes will do
        lines += wrapped(row + reset.reason, indent=len(row))
    for label, texts in (("Attention: ", report.attention), ("Not read: ", report.unread)):
        lines += [""] if texts else []
        lines += [line for text in texts for line in wrapped(label + text, indent=len(label))]
    return "".join(f"{line}\n" for line in lines)


def _record_rows(report: Report) -> tuple[tuple[str, str], ...]:
    noted, done = report.record, report.record.of(report.boot_id)
    if done is not None:
        total = done.total
        counts = f"{total.found} found, {total.cleared} set aside, {total.kept} kept, {total.torn} torn"
        mended = "; mended since" if done.result is Result.MISCONFIGURED and report.config_valid else ""
        return (
            ("Last boot", f"{done.judgement.verdict}: {done.judgement.why}"),
            ("This boot", f"{done.result}: {printable(done.why)}{mended}"),
            ("", counts + (f", in {done.reset}" if done.reset else "")),
        )
    if noted.unread is not None:
        why = f"not known: /run/cni-lease-reset/boot: {noted.unread}"
    elif noted.late:
        why = "not judged: installed since this kernel started; the next boot is the first that is looked after"
    elif noted.boot_id is None:
        why = "not judged: boot has not run since this kernel started"
    elif noted.boot_id == report.boot_id:
        why = "not judged: boot began and did not end, or is still at work"
    else:
        whose = "of another boot" if report.boot_id else "of this boot or another: its id cannot be read"
        why = f"not judged: the record under /run is {whose}"
    return (("Last boot", why),)


def _marker(reading: Reading | None, this: BootId | None) -> tuple[dict[str, str], str]:
    """Show the marker, to programs and to people."""
    match reading:
        case Marker(state=state, boot_id=boot_id, since=since):
            whose = "this boot" if boot_id == this else f"{'another ' if this else ''}boot, {boot_id[:8]}"
            return {"state": state, "boot_id": boot_id, "since": since}, f"{state} since {since} ({whose})"
        case NoMarker():
            return {"state": "none"}, "none: the next boot cannot tell how this one ended"
        case None:
            return {"state": "unread"}, "not known: its directory cannot be read"
    return {"state": "damaged", "reason": reading.why}, f"damaged: {reading.why}"


def _stock_lines(stock: Stock) -> list[str]:
    name = printable(stock.name)
    owners = f"{'?' if stock.live is None else stock.live:>8}{'?' if stock.leaked is None else stock.leaked:>8}"
    counts = f"{stock.ipv4:>8}{stock.ipv6:>8}{stock.torn:>8}{owners}"
    lines = [f"{name:<40}{counts}"] if len(name) <= 40 else [name, f"{'':<40}{counts}"]
    several = len(stock.pools) > len({pool.family for pool in stock.pools})
    for pool in stock.pools:
        which = wrapped(f"        {pool.range_set.replace(',', ', ')}", indent=8) if several else []
        lines += [_pool_line(pool), *which]
    return lines + ([f"        {stock.outside} of another subnet"] if stock.outside else [])


def _pool_line(pool: Pool) -> str:
    family = pool.family.replace("ip", "IP")
    if pool.size >= _MANY:
        return f"  {family}  {pool.leases} of more than a million"
    percent = pool.leases * 100 // pool.size
    return f"  {family}  {bar(pool.leases, pool.size, width=40)}  {pool.leases} of {pool.size}, {percent} % full"
