"""What each command prints at 80 columns; looked at, and kept in tests/golden/. GOLDEN=1 in the environment renews it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import GOLDEN, OTHER, SANDBOX, THIS, TOP, Tree
from machine import Machine
from programs import command, normalised

WRITTEN = 1_795_200_000  # 2026-11-20


def crashed(tree: Tree) -> None:
    """A node that lost its power: leases of pods that are gone, a torn one, and those of a network nobody names."""
    tree.mark("running", OTHER)
    for number, content in ((2, f"{1:064x}\r\neth0"), (3, ""), (4, f"{2:064x}\r\neth0")):
        path = tree.lease(f"10.52.0.{number}", content)
        os.utime(path, (WRITTEN + number, WRITTEN + number))
    tree.lease("10.60.0.1", network="macvlan-a")


def living(tree: Tree) -> None:
    """The same node, up again with pods, one of them known by its address alone, and with a lease that is broken."""
    machine = Machine(tree.root)
    crashed(tree)
    tree.mark("running", THIS)
    tree.lease("10.52.0.5")
    tree.shim()
    for number in range(6, 10):
        tree.lease(f"10.52.0.{number}", f"{number:064x}\r\neth0")
        machine.addresses(machine.process("pause"), f"10.52.0.{number}")
    os.utime(tree.lease("10.52.0.10", f"{10:064x}\r\neth0"))
    tree.lease("10.52.0.11", "x" * 5000)


def reset(tree: Tree) -> None:
    """A node with a reset, and a lease that was given out anew since."""
    tree.mark("running", THIS)
    folder = tree.state / "set-aside/3-20261123T061201Z-22222222/k8s-pod-network"
    folder.mkdir(parents=True)
    for number in range(2, 7):
        (folder / f"10.52.0.{number}").write_text(f"{SANDBOX}\r\neth0")
    tree.lease("10.52.0.4")


def configured(tree: Tree) -> None:
    tree.config("networks: [k8s-pod-network, 'macvlan-*']\ndata_dir: /srv/cni/networks\n")


CASES: dict[str, tuple[Callable[[Tree], None], tuple[str, ...], int]] = {
    "boot-dry-run": (crashed, ("boot", "--dry-run"), 0),
    "boot": (crashed, ("boot",), 0),
    "shutdown": (living, ("shutdown", "--force"), 0),
    "config": (configured, ("config",), 0),
    "config-wrong": (lambda tree: tree.config("network: [a]\n"), ("config",), 78),
    "recover-dry-run": (living, ("recover", "--dry-run"), 0),
    "recover": (living, ("recover", "--yes"), 0),
    "restore": (reset, ("restore", "3-20261123T061201Z-22222222"), 0),
    "restore-wrong": (reset, ("restore", "3-20261123"), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_a_command_prints_this(tree: Tree, name: str) -> None:
    prepare, arguments, status = CASES[name]
    prepare(tree)
    done = command(tree.node, *arguments, COLUMNS="80")
    said = normalised(done.stderr + done.stdout)
    golden = GOLDEN / f"{name}.txt"
    if "GOLDEN" in os.environ:
        golden.write_text(said)
    assert done.returncode == status, said
    assert said == golden.read_text()
    # An error, and an entry of the journal, is one line whatever its length; so is a setting, for it is YAML.
    answer = [line for line in done.stdout.splitlines() if "  # " not in line]
    assert max(map(len, answer), default=0) <= 80


def test_every_golden_output_is_some_tests(tree: Tree) -> None:
    files = {path.name for path in Path(GOLDEN).iterdir()}
    assert files == {f"{name}.txt" for name in CASES} | {"history.txt", "status.txt", "metrics.prom"}


@pytest.mark.parametrize("name", ["history", "status"])
def test_the_page_for_operating_shows_what_it_prints(name: str) -> None:
    shown = "".join(f"    {line}\n" if line else "\n" for line in (GOLDEN / f"{name}.txt").read_text().splitlines())
    assert shown in (TOP / "docs/operating.md").read_text()
