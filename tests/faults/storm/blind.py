"""The program with its sight changed: where one kind of evidence is kept from it, the storm must do harm."""

import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from cni_lease_reset import cli
from cni_lease_reset.commands import recover
from cni_lease_reset.commands.fate import Fate, sort_out
from cni_lease_reset.core.findings import Lease, Living
from cni_lease_reset.edges import namespaces, traces
from cni_lease_reset.edges.node import Node
from cni_lease_reset.edges.sight import Sight

_WHILE: Final = 0.3  # seconds


def put(owner: object, name: str, blind: object) -> None:
    """Put it in the place of what sees; what is not there under this name could not be missed either."""
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, blind)


def environments() -> None:
    """No CNI plugin is seen at work."""
    put(traces, "_PLUGIN", re.compile(rb"(?!)"))


def processes() -> None:
    """No process shows the addresses of its network namespace."""
    look = namespaces.Addresses.look

    def only_mounted(self: namespaces.Addresses, net: str, process: int | None) -> None:
        if process is None:
            look(self, net, process)

    put(namespaces.Addresses, "look", only_mounted)


def mounts() -> None:
    """No mounted network namespace is seen."""
    put(namespaces, "mounted", lambda *_: [])


def ids() -> None:
    """No command line is read."""
    said = traces._said
    put(traces, "_said", lambda *where: ({}, said(*where)[1]))


def slowly(*, first: bool = True) -> None:
    """Nothing is kept from it, but between the addresses and the ids asked for again many an ADD comes to its end."""
    gather, asked = traces.gather, []

    def slow(sight: Sight, node: Node) -> traces.Traces:
        asked.append(1)
        if len(asked) == 2:
            time.sleep(_WHILE)
        found = gather(sight, node)
        return found if first or len(asked) == 2 else found._replace(text=b"", words=frozenset(), plugins=frozenset())

    put(traces, "gather", slow)


def moments() -> None:
    """Ids are asked for only after the addresses: an ADD that ends in between shows in neither."""
    slowly(first=False)


def siblings() -> None:
    """No lease lives with another one of its owner."""

    def one_by_one(found: tuple[Lease, ...], living: Living, *, now: float, uptime: float) -> dict[Lease, Fate]:
        return {lease: sort_out((lease,), living, now=now, uptime=uptime)[lease] for lease in found}

    put(recover, "sort_out", one_by_one)


KINDS: Final[Mapping[str, Callable[[], None]]] = {
    each.__name__: each for each in (environments, processes, mounts, ids, siblings, moments, slowly)
}


if __name__ == "__main__":
    KINDS[sys.argv[1]]()
    sys.exit(cli.main(sys.argv[2:]))
