"""What ``status`` shows: how the last boot ended, what this boot did, and how things stand. Changes nothing."""

import os
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from ..core import events
from ..core.errors import ConfigError, describe, printable
from ..core.fate import Fate, sort_out
from ..core.model import BootId, Config, Network, Outcome, Reading, Survey
from ..edges import config, durable, leases, living, marker, record, shelf
from ..edges.node import Node, set_aside_directory
from ..edges.systemd import Inspector
from . import attention, pools
from .pools import Pool

T = TypeVar("T")
U = TypeVar("U")


class Stock(NamedTuple):
    """One network now: its leases, whose they are, and how much room it has; ``None`` where that is in doubt."""

    network: Network
    live: int | None = None
    leaked: int | None = None
    pools: tuple[Pool, ...] = ()


class OnShelf(NamedTuple):
    """One reset."""

    name: str
    leases: int
    reason: str  # empty where it is not known


class Report(NamedTuple):
    """All that ``status`` shows; ``unread`` says what could not be looked at."""

    boot_id: BootId | None
    record: Outcome | record.Began | record.Unreadable | None
    reading: Reading | None  # None where its directory cannot be read
    stocks: tuple[Stock, ...]
    unlisted: tuple[Network, ...]
    resets: tuple[OnShelf, ...]  # newest first
    pending: str | None  # why the next boot sets all leases aside, whatever becomes of this one
    attention: tuple[str, ...]  # what somebody should see to
    unread: tuple[str, ...]


def gather(node: Node, systemd: Inspector) -> Report:
    """Look at everything, and go on past what cannot be read."""
    unread: list[str] = []
    settings = _settings(node, unread)
    reading = _try(lambda: marker.read(node), None, unread)
    boot_id = _try(lambda: node.boot_id(), None, unread)
    survey = _try(lambda: leases.survey(node, settings), Survey(), unread)
    unread += [f"network {printable(each.network)}: {each.why}" for each in survey.troubles]
    stocks = _try(lambda: _stocks(node, settings, survey, unread), None, unread) or ()
    resets = _try(lambda: _resets(node, settings), None, unread) or ()
    noted = record.read(node)
    pending = attention.pending(boot_id, noted, reading, settings)
    wrong = (
        *attention.of_boot(boot_id, noted, pending),
        *(line for each in stocks for line in attention.of_pools(each.network, each.leaked, each.pools, settings)),
        *attention.of_unlisted(survey.unlisted, settings),
        *attention.of_surroundings(node, settings, systemd),
    )
    not_read = tuple(dict.fromkeys(unread))
    return Report(boot_id, noted, reading, stocks, survey.unlisted, resets, pending, wrong, not_read)


def _try(look: Callable[[], T], otherwise: U, unread: list[str]) -> T | U:
    try:
        return look()
    except OSError as error:
        unread.append(describe(error))
        return otherwise


def _settings(node: Node, unread: list[str]) -> Config:
    try:
        return config.read(node).config
    except ConfigError as error:
        unread.append(f"{error} (shown with the defaults)")
        return Config()


def _stocks(node: Node, settings: Config, survey: Survey, unread: list[str]) -> tuple[Stock, ...]:
    if not survey.networks:
        return ()
    sizes = pools.read(node, settings)
    unread += sizes.unread
    with durable.directory(settings.data_dir, root=node.root) as data:
        return tuple(_stock(node, data, each, sizes, unread) for each in survey.networks)


def _stock(node: Node, data: int, network: Network, sizes: pools.Pools, unread: list[str]) -> Stock:
    found = leases.inventory(data, network.name)
    unowned = sum(lease.owner is None and not lease.torn for lease in found)
    if unowned:
        unread.append(f"network {printable(network.name)}: no owner can be read in {events.leases(unowned)}")
    room = sizes.of(network.name, [lease.address for lease in found])
    seen = living.whose(node, found, lenient=True)
    if seen.doubts:
        unread += (f"whose the leases are: {doubt}" for doubt in seen.doubts)
        return Stock(network, pools=room)
    fates = list(sort_out(found, seen, now=time.time(), uptime=node.uptime()).values())
    leaked = fates.count(Fate.LEAKED)
    return Stock(network, sum(fate.lives for fate in fates), leaked, room)


def _resets(node: Node, settings: Config) -> tuple[OnShelf, ...]:
    path = set_aside_directory(settings.data_dir)
    try:
        with durable.directory(path, root=node.root) as above:
            return tuple(_on_shelf(above, node, path, name) for name in reversed(shelf.resets(above)))
    except FileNotFoundError:
        return ()


def _on_shelf(above: int, node: Node, path: str, name: str) -> OnShelf:
    with durable.opened(above, name) as reset:
        return OnShelf(name, _size(node.path(f"{path}/{name}")), printable(shelf.reason(reset)))


def _size(reset: str) -> int:
    return sum(len(os.listdir(network.path)) for network in os.scandir(reset) if network.is_dir(follow_symlinks=False))
