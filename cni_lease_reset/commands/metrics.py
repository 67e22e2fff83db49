"""Metrics for node_exporter's textfile collector, written by ``status --metrics``.

Source: Prometheus' text exposition format, and ``promtool check metrics``.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

from .. import __version__
from ..core.errors import printable
from ..core.model import Result, Verdict
from ..edges import durable, record
from ..edges.node import RUNTIME_DIRECTORY, Node
from .status import Report

Samples: TypeAlias = Sequence[tuple[float, Mapping[str, str]]]  # a number, and the labels that tell it from others
Metric: TypeAlias = tuple[str, str, Samples]  # its name, what it means, and its samples


def write(node: Node, path: str, content: str) -> None:
    """Replace the file whole, readable by anybody. Its directory must be there. Raises ``OSError``."""
    directory = durable.directory(os.path.dirname(path), root=node.root)
    with durable.named(node.path(path), always=True), directory as folder:
        durable.replace(folder, os.path.basename(path), content.encode())


def text(node: Node, report: Report) -> str:
    """Write a report in the exposition format."""
    return "".join(_gauge(*metric) for metric in (*_of_boot(node, report), *_of_now(report)))


def _of_boot(node: Node, report: Report) -> Iterator[Metric]:
    """What this boot did; nothing where it was not judged."""
    outcome = record.judged(report.record, report.boot_id)
    if outcome is None:
        return
    verdicts = [(each is outcome.judgement.verdict, {"verdict": each}) for each in Verdict]
    yield "boot_verdict", "How the last boot ended: 1 for one verdict, 0 for the others.", verdicts
    results = [(each is outcome.result, {"result": each}) for each in Result]
    yield "boot_result", "What this boot did about it: 1 for one result, 0 for the others.", results
    with suppress(OSError):  # the record may be gone meanwhile; when boot wrote it, for nobody writes there after it
        written = os.stat(node.path(f"{RUNTIME_DIRECTORY}/boot")).st_mtime
        yield "last_boot_timestamp_seconds", "When the boot service ran.", [(written, {})]
    yield "boot_duration_seconds", "How long it took.", [(outcome.usec / 1_000_000, {})]
    for name, what, numbers in (
        ("found", "Leases that this boot found", [each.found for each in outcome.networks]),
        ("set_aside", "Leases that this boot set aside", [each.cleared for each in outcome.networks]),
        ("kept", "Leases that this boot left where they were", [each.kept for each in outcome.networks]),
        ("torn", "Leases that this boot found torn", [each.torn for each in outcome.networks]),
    ):
        labels = [{"network": each.name} for each in outcome.networks]
        yield f"boot_leases_{name}", f"{what}, by network.", list(zip(numbers, labels, strict=True))


def _of_now(report: Report) -> Iterator[Metric]:
    """How things stand."""
    yield "info", "The version of cni-lease-reset.", [(1, {"version": __version__})]
    pending = "Whether the next boot sets leases aside, however this one ends."
    yield "pending_reset", pending, [(report.pending is not None, {})]
    wrong = len(report.attention) + len(report.unread)
    yield "attention_needed", "How many things cni-lease-reset status would point out.", [(wrong, {})]
    stocks = [(each, {"network": each.name}) for each in report.stocks]
    leases = [(each.ipv4, {**labels, "family": "ipv4"}) for each, labels in stocks]
    leases += [(each.ipv6, {**labels, "family": "ipv6"}) for each, labels in stocks]
    yield "leases", "Leases now, by network and address family.", leases
    torn = [(each.torn, labels) for each, labels in stocks]
    yield "leases_torn", "Torn leases now, by network: no DEL can release them.", torn
    leaked = [(each.leaked, labels) for each, labels in stocks if each.leaked is not None]
    yield "leases_leaked", "Leases now whose container does not live, by network.", leaked
    sizes = [(pool.size, {**labels, "family": pool.family}) for each, labels in stocks for pool in each.pools]
    yield "pool_addresses", "Addresses that a network can give, where that is known.", sizes
    unlisted = [(each.leases, {"network": each.name}) for each in report.unlisted]
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
