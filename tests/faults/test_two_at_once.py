"""Two programs at once, as real processes: ours beside ours, and ours beside a storm of the real host-local."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TOP, HostLocal, Tree

from . import report
from .cases import aside, live
from .conftest import Figures

BOOT, RECOVER = ("boot",), ("recover", "--yes")


def command(tree: Tree, *arguments: str) -> tuple[str, ...]:
    """The program, but for its patience with host-local's lock."""
    code = (
        "import sys\n"
        "from cni_lease_reset.edges import lock\n"
        "lock.HOST_LOCAL = 0.2\n"
        "from cni_lease_reset.cli import main\n"
        f"sys.exit(main({['--root', str(tree.root), *arguments]!r}))\n"
    )
    return (sys.executable, "-B", "-c", code)


@contextmanager
def halfway(tree: Tree, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program so that it waits at its first move of a lease until a debugger lets it go on; yield it there."""
    gate = tree.root.with_name("gate")
    os.mkfifo(gate)
    # The first rename of `boot` is the record's under /run, so the gate is in the way of the lease itself.
    code = (
        "import os, sys\n"
        "real = os.rename\n"
        "def rename(source, *rest, **options):\n"
        "    if source[0] == '1' and not seen:\n"
        "        seen.append(1)\n"
        f"        open({str(gate)!r}, 'w').close()\n"
        f"        open({str(gate)!r}).read()\n"
        "    return real(source, *rest, **options)\n"
        "seen = []\n"
        "os.rename = rename\n"
        "from cni_lease_reset.cli import main\n"
        f"sys.exit(main({['--root', str(tree.root), *arguments]!r}))\n"
    )
    with subprocess.Popen(
        (sys.executable, "-B", "-c", code), cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        gate.open().read()  # it is there
        yield process
        gate.open("w").close()
        assert process.wait() == 0
    gate.unlink()


@pytest.mark.parametrize("first", [BOOT, RECOVER], ids=lambda verb: verb[0])
@pytest.mark.parametrize("second", [BOOT, RECOVER], ids=lambda verb: verb[0])
def test_while_one_of_ours_works_another_changes_nothing(
    first: tuple[str, ...], second: tuple[str, ...], place: Path, figures: Figures
) -> None:
    root = place / "n"
    root.mkdir()
    tree = Tree(root)
    tree.mark("running")
    for number in range(2, 20):
        tree.lease(f"10.52.0.{number}", f"{number}")
    before = live(tree)
    with halfway(tree, *first):
        done = subprocess.run(command(tree, *second), cwd=TOP, text=True, capture_output=True, check=False)
        if (first, second) == (BOOT, BOOT):  # only the first run under a kernel sets leases aside
            assert (done.returncode, "Same boot" in done.stderr) == (0, True), done.stderr
        else:
            assert done.returncode == 75, done.stderr
            ours = "another cni-lease-reset is at work" in done.stderr.lower()
            assert ours or (second == RECOVER and "another process holds host-local's lock" in done.stderr)
        assert done.stderr.count("\n") <= 2
    assert live(tree) == {}
    assert list(aside(tree).values()) == [before]
    figures.add(report.PAIRS)


def test_of_two_that_start_together_each_ends_well_and_no_lease_is_lost(
    place: Path, long: bool, figures: Figures
) -> None:
    rounds = 60 if long else 4
    for number in range(rounds):
        root = place / str(number)
        root.mkdir()
        tree = Tree(root)
        tree.mark("running")
        for address in range(2, 60):
            tree.lease(f"10.52.0.{address}", f"{address}")
        before = live(tree)
        both = [
            subprocess.Popen(
                command(tree, *verb), cwd=TOP, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            for verb in (BOOT, (BOOT, RECOVER)[number % 2])
        ]
        said = [process.communicate()[1] for process in both]
        statuses = {process.returncode for process in both}
        if statuses == {74, 75}:  # boot had our lock and recover host-local's: both say so, and nothing is changed
            assert (live(tree), aside(tree)) == (before, {}), said
            continue
        assert statuses <= {0, 74, 75}, said
        assert 0 in statuses, said
        assert live(tree) == {}, said
        assert [lease for leases in aside(tree).values() for lease in leases.items()] == unordered(before, tree)
    figures.add(report.PAIRS, rounds)


def unordered(before: dict[tuple[str, str], bytes], tree: Tree) -> list[tuple[tuple[str, str], bytes]]:
    """What was there before, in the order in which it is found now."""
    order = [key for leases in aside(tree).values() for key in leases]
    assert sorted(order) == sorted(before)
    return [(key, before[key]) for key in order]


@pytest.mark.parametrize("verb", [BOOT, RECOVER], ids=lambda verb: verb[0])
def test_beside_a_storm_of_adds_and_dels_no_address_is_given_twice(
    verb: tuple[str, ...], place: Path, long: bool, figures: Figures
) -> None:
    root = place / "n"
    root.mkdir()
    tree = Tree(root)
    tree.mark("running")
    plugin = HostLocal(tree)
    for number in range(30):
        plugin.add(f"old{number}")
    tree.age()
    given: dict[str, str] = {}  # by container: those that were added after the lock was taken
    adds = 40 if long else 8

    def storm(name: str) -> None:
        for number in range(adds):
            given[f"{name}-{number}"] = plugin.add(f"{name}-{number}")
            plugin.delete(f"old{number}")  # as a kubelet that is late
            if number % 4 == 3:
                given.pop(f"{name}-{number - 1}")
                plugin.delete(f"{name}-{number - 1}")

    threads = [threading.Thread(target=storm, args=(name,)) for name in "abcd"]
    with halfway(tree, *verb):
        with (tree.network / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ours, so whatever they add comes after
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given.values())) == len(given), "one address, one pod"
    on_disk = {address: content.decode().split("\r\n")[0] for (_, address), content in live(tree).items()}
    assert on_disk == {address: container for container, address in given.items()}
    assert sum(map(len, aside(tree).values())) == 30
    figures.add(report.STORM, len(threads) * adds * 2)
