"""The program, kept from seeing one kind of evidence: the storm must do harm then, or it proves nothing."""

import re
import sys
from collections.abc import Callable, Mapping
from typing import Final

from cni_lease_reset import cli
from cni_lease_reset.edges import namespaces, traces


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


KINDS: Final[Mapping[str, Callable[[], None]]] = {
    each.__name__: each for each in (environments, processes, mounts, ids)
}


if __name__ == "__main__":
    KINDS[sys.argv[1]]()
    sys.exit(cli.main(sys.argv[2:]))
