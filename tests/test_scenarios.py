"""A boot is a pair of directories and the journal lines expected: tests/scenarios/NN-name/{before,after,journal}.

A new scenario is a `git add`, no code. An optional file `setup` says what a directory cannot hold, a line each:
`locked PATH` (another process holds a lock), `unit NAME STATE`, `systemd silent`, `newer PATH` (than the marker; all
other files are of before it). In `after` and `journal` the
time of this run is written as 20261123T061201Z and 2026-11-23T06:12:01Z. An empty directory holds a file `.keep`.
"""

import fcntl
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import Kept, Systemd, everything
from programs import normalised

from cni_lease_reset import service
from cni_lease_reset.edges.node import Node

_AN_HOUR_AGO = time.time() - 3600
_HALF = _AN_HOUR_AGO + 1800
SCENARIOS = sorted(path for path in (Path(__file__).parent / "scenarios").iterdir() if path.is_dir())


def picture(root: Path) -> dict[str, str]:
    """Every file with its content; links with their target. The record under /run is `status`'s own, and left out."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = normalised(str(path.relative_to(root)))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file() and path.name != ".keep" and name != "run/cni-lease-reset/boot":
            found[name] = normalised(path.read_bytes().decode("latin-1"))
    return found


def set_up(scenario: Path, root: Path, stack: ExitStack) -> Systemd:
    systemd = Systemd()
    setup = scenario / "setup"
    for line in setup.read_text().splitlines() if setup.exists() else ():
        match line.split():
            case ["locked", path]:
                file = stack.enter_context((root / path).open())
                fcntl.flock(file, fcntl.LOCK_EX)
            case ["unit", name, state]:
                systemd.states[name] = state
            case ["newer", path]:  # a lease that was written after the marker
                os.utime(root / path)
            case ["systemd", "silent"]:
                systemd.down, systemd.remark = (
                    None,
                    "D-Bus cannot be asked (no answer within 3 s); there is no systemctl",
                )
            case _:
                raise AssertionError(f"{setup}: {line}")
    return systemd


def copy(scenario: Path, root: Path) -> None:
    """The node as it was before."""
    shutil.copytree(scenario / "before", root, symlinks=True)
    for keep in root.rglob(".keep"):
        keep.unlink()
    for lease in root.glob("var/lib/cni/networks/*/*"):
        os.utime(lease, (_AN_HOUR_AGO, _AN_HOUR_AGO), follow_symlinks=False)
    for marker in root.glob("var/lib/cni/cni-lease-reset/marker"):
        os.utime(marker, (_HALF, _HALF))
    for config in root.glob("etc/cni-lease-reset/*"):
        config.chmod(0o644)  # whatever the umask of the checkout


def told(journal: Kept) -> str:
    return "".join(f"<{entry.priority}>{normalised(entry.message)}\n" for entry in journal.entries)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_a_boot_leaves_what_is_expected(scenario: Path, tmp_path: Path) -> None:
    root = tmp_path / "node"
    copy(scenario, root)
    journal = Kept()
    with ExitStack() as stack:
        service.boot(Node(str(root)), set_up(scenario, root, stack), journal)
    assert told(journal) == (scenario / "journal").read_text()
    assert picture(root) == picture(scenario / "after")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_a_dry_run_says_the_same_and_leaves_all_as_it_was(scenario: Path, tmp_path: Path) -> None:
    root = tmp_path / "node"
    copy(scenario, root)
    rehearsal, journal = Kept(), Kept()
    with ExitStack() as stack:
        systemd = set_up(scenario, root, stack)
        before = everything(root)
        expected = service.boot(Node(str(root), rehearsal=True), systemd, rehearsal)
        assert everything(root) == before
        outcome = service.boot(Node(str(root)), systemd, journal)
    assert (expected.reset is None) == (outcome.reset is None)
    assert expected._replace(reset=None, usec=0) == outcome._replace(reset=None, usec=0)
    assert told(rehearsal) == told(journal).replace(normalised(str(outcome.reset)), "a new reset")


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 15
