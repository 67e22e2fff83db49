"""Metrics for node_exporter's textfile collector, written by ``status --metrics``.

Source: Prometheus' text exposition format, and ``promtool check metrics``.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from .. import __version__
from ..core.errors import printable
from ..core.findings import Counts, Result
from ..core.model import Verdict
from ..edges import durable
from ..edges.node import Node
from .status import Report

Samples: TypeAlias = Sequence[tuple[float, Mapping[str, str]]]  # a number, and the labels that tell it from others
Metric: TypeAlias = tuple[str, str, Samples]  # its name, what it means, and its samples


def write(node: Node, path: str, content: str) -> None:
    """Replace the file whole, readable by anybody. Its directory must be there. Raises ``OSError``."""
    directory = durable.directory(os.path.dirname(path), root=node.root)
    with directory as folder, durable.named(node.path(path), always=True):
        durable.replace(folder, os.path.basename(path), content.encode())


def text(report: Report) -> str:
    """Write a report in the exposition format."""
    return "".join(_gauge(*metric) for metric in (*_of_boot(report), *_of_now(report)))


def _of_boot(report: Report) -> Iterator[Metric]:
    """What this boot did; nothing but that where it was not judged."""
    outcome = report.record.of(report.boot_id)
    judged: Samples = [] if report.record.late else [(outcome is not None, {})]
    yield "boot_judged", "Whether the boot service came to a verdict under this boot id.", judged
    if outcome is None:
        return
    verdicts = [(each is outcome.judgement.verdict, {"verdict": each}) for each in Verdict]
    yield "boot_verdict", "How the last boot ended: 1 for one verdict, 0 for the others.", verdicts
    results = [(each is outcome.result, {"result": each}) for each in Result]
    yield "boot_result", "What this boot did about it: 1 for one result, 0 for the others.", results
    yield "boot_duration_seconds", "How long it took.", [(outcome.usec / 1_000_000, {})]
    told = (("found", "found"), ("set_aside", "set aside"), ("kept", "left where they were"), ("torn", "found torn"))
    for (name, what), of in zip(told, Counts._fields, strict=True):
        samples = [(getattr(its, of), {"network": network}) for network, its in outcome.networks.items()]
        yield f"boot_leases_{name}", f"Leases that this boot {what}, by network.", samples


def _of_now(report: Report) -> Iterator[Metric]:
    """How things stand."""
    yield "info", "The version of cni-lease-reset.", [(1, {"version": __version__})]
    yield "config_valid", "Whether the configuration can be used, now.", [(report.config_valid, {})]
    # No clock that somebody sets: how long ago this boot was, and proof that somebody writes this anew.
    uptime = "How long this machine was up when this was written."
    yield "uptime_seconds", uptime, [] if report.uptime is None else [(report.uptime, {})]
    pending = "Whether the next boot sets leases aside, however this one ends."
    yield "pending_reset", pending, [(report.pending is not None, {})]
    wrong = len(report.attention) + len(report.unread)
    yield "attention_needed", "How many things cni-lease-reset status would point out.", [(wrong, {})]
    stocks = [(each, {"network": each.name}) for each in report.stocks]
    leases = [(getattr(each, of), {**its, "family": of}) for of in ("ipv4", "ipv6") for each, its in stocks]
    yield "leases", "Leases now, by network and address family.", leases
    yield "leases_torn", "Torn leases now, by network: no DEL can release them.", [(e.torn, its) for e, its in stocks]
    leaked = [(each.leaked, its) for each, its in stocks if each.leaked is not None]
    yield "leases_leaked", "Leases now whose container does not live, by network.", leaked
    pools = [(pool, labels) for each, labels in stocks for pool in each.pools]
    pooled = [(pool, {**labels, "family": pool.family, "range_set": pool.range_set}) for pool, labels in pools]
    sizes = [(pool.size, labels) for pool, labels in pooled]
    yield "pool_addresses", "Addresses that a range set can give, where that is known.", sizes
    yield "pool_leases", "Leases now in a range set.", [(pool.leases, labels) for pool, labels in pooled]
    unlisted = [(len(each.found), {"network": each.name}) for each in report.unlisted]
    yield "not_configured_leases", "Leases of networks that no setting names.", unlisted


def _gauge(name: str, what: str, samples: Samples) -> str:
    """Write one metric; without samples it is left out."""
    name = f"cni_lease_reset_{name}"
    lines = [f"# HELP {name} {what}\n# TYPE {name} gauge\n"] if samples else []
    for value, labels in samples:
        # The exposition format quotes as JSON does, once nothing but printable characters is left.
        inside = ",".join(f"{key}={json.dumps(printable(text), ensure_ascii=False)}" for key, text in labels.items())
        number = int(value) if value == int(value) else value
        lines.append(f"{name}{{{inside}}} {number}\n" if labels else f"{name} {number}\n")
    return "".join(lines)
