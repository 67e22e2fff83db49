"""Let one lease of sixty be damaged or protected, and all sixty: one costs nobody else anything, all are told."""

import os
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from conftest import OTHER, THIS, Tree
from machine import Machine

from cni_lease_reset.core.model import Marker, State

from . import report
from .cases import reading
from .conftest import LONG, Figures
from .tracing import Call, Run, failing, plain

ERRORS: Final = ("EUCLEAN", "EPERM", "EIO")  # a damaged inode, chattr +i, a bad sector
LEASES: Final = 60
STAT: Final = ("newfstatat", "fstat")
OPEN: Final = ("openat",)
RENAME: Final = ("renameat", "renameat2", "rename")
UNLINK: Final = ("unlinkat", "unlink")
RESET: Final = "1-20261101T061201Z-22222222"


class Verb(NamedTuple):
    """A verb on a node of sixty leases, and what must come of it where a call fails."""

    name: str
    arguments: tuple[str, ...]
    mark: str
    calls: tuple[str, ...]
    one: int  # leases that lie in the network in the end, where it fails for one
    every: int  # where it fails for all
    status: int = os.EX_IOERR  # where it fails for all
    quick: tuple[str, ...] = ()  # tried by `make test`, too: with how many and which error

    def tree(self, root: Path) -> Tree:
        """Make the node anew."""
        root.mkdir(parents=True)
        tree = Tree(root)
        Machine(root)
        tree.mark(self.mark, OTHER if self.arguments[0] == "boot" else THIS)
        tree.config("keep_resets: 1\n")
        old = tree.state / f"set-aside/{RESET}/k8s-pod-network"
        old.mkdir(parents=True)
        for number in range(LEASES):
            if self.arguments[0] == "restore":
                (old / f"10.52.0.{number}").write_text(f"sandbox-{number}\r\neth0")
            else:
                tree.lease(f"10.52.0.{number}", f"sandbox-of-pod-{number}\r\neth0")
                (old / f"10.53.0.{number}").touch()
        return tree


def verbs() -> list[Verb]:
    """What is tried: where leases are only looked at, one that cannot be read goes all the same if all are due."""
    boot, recover, restore = ("boot",), ("recover", "--yes"), ("restore", RESET)
    return [
        Verb("boot opens", boot, "running", OPEN, one=0, every=0, status=0, quick=("one EUCLEAN",)),
        Verb("boot moves", boot, "running", RENAME, one=1, every=LEASES, quick=("one EPERM", "every EIO")),
        Verb("boot prunes", boot, "running", UNLINK, one=0, every=0, status=0, quick=("one EIO",)),
        Verb("boot reads, after a clean shutdown", boot, "clean", STAT, one=LEASES, every=LEASES, quick=("one EIO",)),
        Verb("boot opens, after a clean shutdown", boot, "clean", OPEN, one=LEASES, every=LEASES, quick=("every EUCLEAN",)),
        Verb("recover reads", recover, "running", STAT, one=1, every=LEASES),
        Verb("recover opens", recover, "running", OPEN, one=1, every=LEASES, quick=("every EUCLEAN",)),
        Verb("recover moves", recover, "running", RENAME, one=1, every=LEASES, quick=("one EUCLEAN",)),
        Verb("restore moves", restore, "running", RENAME, one=LEASES - 1, every=0, quick=("one EPERM",)),
    ]  # fmt: skip


class Trial(NamedTuple):
    """A call that fails, for how many leases, and how."""

    verb: Verb
    many: str
    error: str

    def __str__(self) -> str:
        return f"{self.verb.name}, {self.many} {self.error}"


def trials(verb: Verb) -> list[Trial]:
    """All in the long run, the quick ones else."""
    found = [Trial(verb, many, error) for many, error in product(("one", "every"), ERRORS)]
    return [each for each in found if LONG or f"{each.many} {each.error}" in verb.quick]


def of_leases(verb: Verb, run: Run) -> list[Call]:
    """The calls of one kind for sixty leases, one right after the other; where they are looked at twice the later ones."""
    place = "/10.53.0." if verb.calls == UNLINK else "/10.52.0."
    its = [call for call in run.calls if call.name in verb.calls and place in f"/{call.place.split()[-1]}"]
    first, last = its[-LEASES], its[-1]
    assert last.number - first.number == LEASES - 1, f"{verb.name}: others between: {its}"
    return its[-LEASES:]


@pytest.mark.parametrize("verb", [each for each in verbs() if trials(each)], ids=lambda verb: verb.name)
def test_what_is_wrong_with_one_lease_costs_no_other_and_what_is_wrong_with_all_is_told(
    verb: Verb,
    place: Path,
    figures: Figures,
    each: Callable[[Callable[[Trial], None], Iterable[Trial]], int],
) -> None:
    calls = of_leases(verb, plain(verb.tree(place / "plain"), *verb.arguments))

    def attempt(trial: Trial) -> None:
        tree = verb.tree(place / f"{trial.many}-{trial.error}")
        first, last = (calls[0], calls[-1]) if trial.many == "every" else (calls[30], calls[30])
        run = failing(tree, first, trial.error, *verb.arguments, last=last)
        said = f"{trial}: {run.status} {run.stdout}{run.stderr}"
        assert len(run.hit) == last.number - first.number + 1, said
        left = verb.one if trial.many == "one" else verb.every
        assert run.status == (0 if trial.many == "one" else verb.status), said
        assert len(tree.leases() if tree.network.exists() else ()) == left, said
        assert len(tree.leases()) + len(tree.set_aside()) >= LEASES, said
        assert "Traceback" not in run.stderr, said
        assert len(run.stderr.splitlines()) <= 3, said
        if left != 0 or verb.calls == UNLINK:  # else all went that was due, and there is nothing to tell
            words = os.strerror({"EUCLEAN": 117, "EPERM": 1, "EIO": 5}[trial.error])
            named = "cannot be read or moved: 10.52.0." in run.stdout
            assert words in run.stderr or named, said
        if verb.arguments == ("boot",) and (run.status == 0 or verb.mark == "running"):
            now = reading(tree)
            done = isinstance(now, Marker) and (now.state, now.boot_id) == (State.RUNNING, THIS)
            assert done == (run.status == 0), said

    figures.add(report.ONE_LEASE, each(attempt, trials(verb)))
