"""What ``status`` shows: how the last boot ended, what this boot did, and how things stand. Changes nothing."""

import os
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import NamedTuple, TypeVar

from ..core import events
from ..core.errors import ConfigError, describe, printable
from ..core.findings import Network, Survey
from ..core.model import BootId, Config, Reading
from ..edges import config, durable, leases, living, marker, record, shelf
from ..edges.node import Node, set_aside_directory
from ..edges.systemd import Manager
from . import attention, pools
from .fate import LIVING, Fate, sort_out
from .pools import Pool

T = TypeVar("T")


class Stock(NamedTuple):
    """One network now, as ``--json`` shows it: its leases, whose they are, and how much room it has."""

    name: str
    ipv4: int
    ipv6: int
    torn: int
    pools: tuple[Pool, ...] = ()
    outside: int | None = None  # leases in none of the pools; None where none is known
    live: int | None = None  # None where that is in doubt
    leaked: int | None = None


class OnShelf(NamedTuple):
    """One reset, as ``--json`` shows it."""

    name: str
    leases: int
    time: str | None  # when it was made, UTC
    reason: str  # empty where it is not known


class Report(NamedTuple):
    """All that ``status`` shows; ``unread`` says what could not be looked at."""

    boot_id: BootId | None
    uptime: float | None  # seconds
    config_valid: bool  # now, whatever boot found
    record: record.Record
    reading: Reading | None  # None where its directory cannot be read
    stocks: tuple[Stock, ...]
    unlisted: tuple[Network, ...]
    resets: tuple[OnShelf, ...]  # newest first
    pending: str | None  # why the next boot sets all leases aside, whatever becomes of this one
    attention: tuple[str, ...]  # what somebody should see to
    unread: tuple[str, ...]


def gather(node: Node, systemd: Manager) -> Report:
    """Look at everything, and go on past what cannot be read."""
    unread: list[str] = []
    try:
        valid: Config | None = config.read(node)
    except ConfigError as error:
        valid = None
        unread.append(f"{error}; shown with the defaults. Mend it, try it with: cni-lease-reset config")
    settings = valid or Config()
    reading = _try(lambda: marker.read(node), unread)
    boot_id, uptime = _try(node.boot_id, unread), _try(node.uptime, unread)
    survey = _try(lambda: leases.survey(node, settings), unread) or Survey()
    sizes = pools.read(node, settings)
    unread += sizes.unread
    stocks = _try(lambda: tuple(_stock(node, each, sizes, unread) for each in survey.networks), unread) or ()
    above, names = set_aside_directory(settings.data_dir), _try(lambda: shelf.listing(node, settings), unread) or []
    resets = tuple(filter(None, [_try(partial(_on_shelf, node, above, name), unread) for name in reversed(names)]))
    noted = record.read(node)
    outcome = noted.of(boot_id)
    pending = attention.pending(boot_id, outcome, reading, valid)
    wrong = [] if noted.late else [*attention.of_boot(outcome, pending)]
    wrong += attention.of_mark(boot_id, reading, systemd)
    wrong += attention.of_networks(node, settings, survey)
    for network, stock in zip(survey.networks, stocks, strict=False):  # no stocks where they cannot be read
        wrong += attention.of_pools(network, stock.leaked, stock.pools, settings)
    for each in survey.unlisted:
        wrong += attention.of_unlisted(each, sizes.of(each), settings, only=not (survey.networks or survey.troubles))
    wrong += attention.of_surroundings(node, settings)
    told = (pending, tuple(wrong), tuple(dict.fromkeys(unread)))
    return Report(boot_id, uptime, valid is not None, noted, reading, stocks, survey.unlisted, resets, *told)


def _try(look: Callable[[], T], unread: list[str]) -> T | None:
    try:
        return look()
    except OSError as error:
        unread.append(describe(error))
        return None


def _stock(node: Node, network: Network, sizes: pools.Pools, unread: list[str]) -> Stock:
    found = network.found
    if unowned := sum(lease.owner is None and not lease.torn for lease in found):
        unread.append(f"network {printable(network.name)}: no owner can be read in {events.leases(unowned)}")
    room = sizes.of(network)
    outside = max(0, len(found) - sum(pool.leases for pool in room)) if room else None
    inet6, torn = sum(":" in lease.address for lease in found), sum(lease.torn for lease in found)
    stock = Stock(network.name, len(found) - inet6, inet6, torn, room, outside)
    seen = living.whose(node, found, lenient=True)
    if seen.doubts:
        unread += (f"whose the leases are: {doubt}" for doubt in seen.doubts)
        return stock
    fates = list(sort_out(found, seen, now=time.time(), uptime=node.uptime()).values())
    return stock._replace(live=sum(fate in LIVING for fate in fates), leaked=fates.count(Fate.LEAKED))


def _on_shelf(node: Node, above: str, name: str) -> OnShelf:
    try:
        made = datetime.fromisoformat(name.split("-")[1]).isoformat().replace("+00:00", "Z")
    except ValueError:
        made = None
    path = f"{above}/{name}"
    with durable.named(node.path(path), always=True), durable.directory(path, root=node.root) as reset:
        leases = 0
        for network in shelf.folders(reset):
            with durable.opened(reset, network) as folder:
                leases += len(os.listdir(folder))
        return OnShelf(name, leases, made, printable(shelf.origin(reset)[0]))
