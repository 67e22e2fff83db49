"""The leak itself, with nothing of ours in the machine: if it stops reproducing, no other test here proves anything."""

import pytest

from node import LEASES, Node

FULL = "no IP addresses available in range set"


@pytest.mark.core
def test_01_the_leak_without_us(node: Node) -> None:
    """A /27 has 29 addresses for pods: 8 pods a boot fill it at the fourth boot, if power cuts leak them all."""
    for boot in range(1, 6):
        outcome = node.pods()
        print(
            f"boot {boot}: started {len(outcome['started'])}, leases {len(node.leases())}, errors {outcome['errors'][:1]}"
        )
        if outcome["errors"]:
            assert boot >= 4, f"the pool was full too early: {outcome}"
            assert all(FULL in error for error in outcome["errors"])
            return
        assert len(outcome["started"]) == 8
        assert len(node.leases()) == 8 * boot, "a power cut leaked fewer leases than it used to"
        # ext4 commits names every 5 s: a cut right after the last pod would lose its lease's name too, and leak one less.
        node.run(f"python3 -c 'import os; os.fsync(os.open(\"{LEASES}\", os.O_RDONLY))'")
        node.power_cut()
    raise AssertionError("five boots and no full pool: the leak no longer reproduces")
