"""Metrics for node_exporter's textfile collector, written by ``status --metrics``.

Source: Prometheus' text exposition format, and ``promtool check metrics``.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from .. import __version__
from ..core.errors import printable
from ..core.model import Outcome, Result, Verdict
from ..edges import durable
from ..edges.node import RUNTIME_DIRECTORY, Node
from .status import Report

_PREFIX: Final = "cni_lease_reset_"


class Sample(NamedTuple):
    """A number and the labels that tell it from others of its name."""

    value: float
    labels: tuple[tuple[str, str], ...] = ()


class Metric(NamedTuple):
    """A gauge; without samples it is left out."""

    name: str
    help: str
    samples: tuple[Sample, ...]


def write(node: Node, path: str, content: str) -> None:
    """Replace the file whole, readable by anybody. Its directory must be there. Raises ``OSError``."""
    with durable.told_as(node.path(path)), durable.directory(os.path.dirname(path), root=node.root) as directory:
        durable.replace(directory, os.path.basename(path), content.encode())


def text(node: Node, report: Report) -> str:
    """Write a report in the exposition format."""
    return "".join(line for metric in (*_of_boot(node, report), *_of_now(report)) for line in _lines(metric))


def _of_boot(node: Node, report: Report) -> Iterator[Metric]:
    """What this boot did; nothing where it was not judged."""
    record = report.record
    if not isinstance(record, Outcome) or record.boot_id != report.boot_id:
        return
    verdicts = tuple(Sample(each is record.judgement.verdict, (("verdict", each),)) for each in Verdict)
    results = tuple(Sample(each is record.result, (("result", each),)) for each in Result)
    yield Metric("boot_verdict", "How the last boot ended: 1 for one verdict, 0 for the others.", verdicts)
    yield Metric("boot_result", "What this boot did about it: 1 for one result, 0 for the others.", results)
    when = _when(node)
    yield Metric("last_boot_timestamp_seconds", "When the boot service ran.", () if when is None else (Sample(when),))
    yield Metric("boot_duration_seconds", "How long it took.", (Sample(record.usec / 1_000_000),))
    for name, what, counts in (
        ("found", "Leases that this boot found", {each.name: each.found for each in record.networks}),
        ("set_aside", "Leases that this boot set aside", {each.name: each.cleared for each in record.networks}),
        ("kept", "Leases that this boot left where they were", {each.name: each.kept for each in record.networks}),
        ("torn", "Leases that this boot found torn", {each.name: each.torn for each in record.networks}),
    ):
        yield Metric(f"boot_leases_{name}", f"{what}, by network.", _by_network(counts.items()))


def _when(node: Node) -> float | None:
    """When ``boot`` wrote down what it did: nobody writes there after it."""
    try:
        return os.stat(node.path(f"{RUNTIME_DIRECTORY}/boot")).st_mtime
    except OSError:
        return None


def _of_now(report: Report) -> Iterator[Metric]:
    """How things stand."""
    stocks = report.stocks
    yield Metric("info", "The version of cni-lease-reset.", (Sample(1, (("version", __version__),)),))
    yield Metric(
        "pending_reset",
        "Whether the next boot sets leases aside, however this one ends.",
        (Sample(report.pending is not None),),
    )
    wrong = len(report.attention) + len(report.unread)
    yield Metric("attention_needed", "How many things cni-lease-reset status would point out.", (Sample(wrong),))
    leases = [(each.network.name, "ipv4", each.network.inet) for each in stocks]
    leases += [(each.network.name, "ipv6", each.network.inet6) for each in stocks]
    yield Metric("leases", "Leases now, by network and address family.", _by_family(leases))
    torn = ((each.network.name, each.network.torn) for each in stocks)
    yield Metric("leases_torn", "Torn leases now, by network: no DEL can release them.", _by_network(torn))
    leaked = ((each.network.name, each.leaked) for each in stocks if each.leaked is not None)
    yield Metric("leases_leaked", "Leases now whose container does not live, by network.", _by_network(leaked))
    sizes = ((each.network.name, pool.family, pool.size) for each in stocks for pool in each.pools)
    yield Metric("pool_addresses", "Addresses that a network can give, where that is known.", _by_family(sizes))
    unlisted = ((each.name, each.leases) for each in report.unlisted)
    yield Metric("not_configured_leases", "Leases of networks that no setting names.", _by_network(unlisted))


def _by_network(numbers: Iterable[tuple[str, int]]) -> tuple[Sample, ...]:
    return tuple(Sample(number, (("network", name),)) for name, number in numbers)


def _by_family(numbers: Iterable[tuple[str, str, int]]) -> tuple[Sample, ...]:
    return tuple(Sample(number, (("network", name), ("family", family))) for name, family, number in numbers)


def _lines(metric: Metric) -> Iterator[str]:
    name = _PREFIX + metric.name
    if metric.samples:
        yield f"# HELP {name} {metric.help}\n# TYPE {name} gauge\n"
    for value, labels in metric.samples:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
        yield f"{name}{{{inside}}} {_number(value)}\n" if labels else f"{name} {_number(value)}\n"


def _escaped(label: str) -> str:
    return printable(label).replace("\\", r"\\").replace('"', r"\"")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
