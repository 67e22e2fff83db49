"""``recover`` beside real pods: real plugins, real network namespaces, and time between each lease and its address.

Nothing stops while it runs, so what it knows of who lives must hold at every moment of a pod's life. No pod here has a
shim, and all leases are an hour old: the evidence decides alone. That it is needed is seen where it is taken away.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from . import report
from .conftest import Figures
from .storm import Outcome, Storm
from .storm.machine import ALONE, TOP
from .storm.pods import PLUGINS, Kind

PODS: Final = 350
LONG: Final = 20_000
_NEEDED: Final = ("bridge", "ptp", "host-local")
_TRIAL: Final = "mount -t tmpfs none /run && touch /run/net && unshare --net=/run/net true"
_ENVIRONMENT: Final = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{TOP}:{TOP}/tests"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for small machines, where they can be made."""
    missing = [each for each in _NEEDED if shutil.which(each, path=PLUGINS) is None]
    tried = subprocess.run((*ALONE, "sh", "-c", _TRIAL), text=True, capture_output=True, check=False)
    if missing or tried.returncode:
        pytest.skip(f"needs network namespaces, as root, and the CNI plugins: {missing or tried.stderr.strip()}")
    return tmp_path_factory.mktemp("machine")


def blow(storm: Storm, machine: Path, *, seconds: int = 300) -> Outcome:
    """Let a storm blow on a new machine, and tell how it ended; with the last process of it all else is gone, too."""
    command = (*ALONE, sys.executable, "-B", "-m", "faults.storm.machine", str(machine), json.dumps(storm))
    done = subprocess.run(
        command, cwd=TOP, env=_ENVIRONMENT, text=True, capture_output=True, check=False, timeout=seconds
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Outcome(*json.loads(done.stdout))


def test_no_living_pod_loses_its_address_and_what_leaked_comes_back(
    machine: Path, long: bool, figures: Figures
) -> None:
    pods = LONG if long else PODS
    outcome = blow(Storm(pods), machine, seconds=14_400 if long else 300)
    assert not outcome.harm
    assert outcome.pods == pods
    assert outcome.waited >= 20, "networks that are never full prove little"
    assert len(outcome.refused) <= outcome.passes / 20, outcome.refused
    assert outcome.gone >= 0.95 * outcome.leaked > 0.95 * pods
    figures.add(report.PODS, outcome.pods)
    figures.add(report.PASSES, outcome.passes)
    figures.add(report.LEAKED, outcome.gone)


def test_a_look_that_takes_its_time_harms_nobody_either(machine: Path) -> None:
    outcome = blow(Storm(40, blind="slowly"), machine)
    assert not outcome.harm
    assert outcome.pods == 40
    assert len(outcome.refused) <= 1, outcome.refused
    assert outcome.gone >= 0.95 * outcome.leaked


@pytest.mark.parametrize(
    ("blind", "harmed"),
    [
        ("environments", set(Kind)),
        ("processes", {Kind.UNMOUNTED}),
        ("mounts", {Kind.MOUNTED, Kind.NO_IPV6}),
        ("ids", {Kind.SHIM}),
        ("siblings", {Kind.NO_IPV6}),
        ("moments", set(Kind)),
    ],
)
def test_without_one_kind_of_evidence_a_pod_that_only_it_shows_loses_its_address(
    blind: str, harmed: set[Kind], machine: Path
) -> None:
    outcome = blow(Storm(LONG, blind=blind), machine)
    victims = {kind for kind in Kind if f"({kind.name.lower()}," in outcome.harm}
    assert victims, f"the storm harms nobody, so it proves nothing: {outcome}"
    assert victims <= harmed, outcome.harm


def test_young_leases_stay_whatever_is_seen(machine: Path) -> None:
    outcome = blow(Storm(40, young=True), machine)
    assert not outcome.harm
    assert (outcome.pods, outcome.gone) == (40, 0)
    assert outcome.passes >= 3
    assert outcome.leaked > 200
