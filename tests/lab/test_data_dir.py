"""A data_dir of one's own, with the drop-in that `config` prints for it, under the unit as it is shipped."""

import json
from pathlib import Path
from typing import Final

import pytest

from .conftest import NewNode
from .node import CONFIG, OVERRIDE

DROP_IN: Final = f"{OVERRIDE}.d/data-dir.conf"
LEASES: Final = ("10.52.0.2", "10.52.0.3")


def drop_in(printed: str) -> str:
    """What an operator copies out of the answer of `config`: all below its heading, without the comment signs."""
    _, _, lines = printed.partition("# For this data_dir: ")
    return "".join(f"{line.removeprefix('# ')}\n" for line in lines.splitlines()[1:])


@pytest.mark.parametrize("above", ["home/pods", "root/of pods"])
def test_leases_there_are_set_aside_as_anywhere(above: str, tmp_path: Path, new_node: NewNode, room: Path) -> None:
    node = new_node(room / tmp_path.name)
    node.start()
    node.write(CONFIG, f"data_dir: {json.dumps(f'/{above}/networks')}\n")
    node.write(DROP_IN, drop_in(node.run("cni-lease-reset config")))
    network = f"{above}/networks/k8s-pod-network"
    for address in LEASES:
        node.write(f"{network}/{address}", f"{'5' * 64}\r\neth0")
    node.crash()

    node.start()
    (told,) = node.verdicts()
    assert (told["CNI_VERDICT"], told["CNI_LEASES_CLEARED"]) == ("unclean", "2"), told["MESSAGE"]
    aside = node.root / above / "cni-lease-reset/set-aside" / told["CNI_RESET"] / "k8s-pod-network"
    assert tuple(sorted(path.name for path in aside.glob("10.*"))) == LEASES
    assert not tuple((node.root / network).glob("10.*"))
    node.crash()
