"""The real program under strace: no system call of a dry run is even meant to change the node."""

import re
from pathlib import Path

import pytest
from conftest import everything

from .cases import CASES, Case
from .tracing import plain

BOOTS = [case for case in CASES if case.verb == "boot"]


@pytest.mark.parametrize("case", BOOTS, ids=lambda case: case.name)
def test_a_dry_run_makes_no_call_that_changes_and_holds_no_lock(case: Case, place: Path) -> None:
    tree = case.tree(place / "node")
    for network in tree.data.iterdir():
        (network / "lock").touch()
    before = everything(tree.root)
    run = plain(tree, "boot", "--dry-run")
    assert everything(tree.root) == before
    assert [str(call) for call in run.calls if call.changes] == []
    on_the_node = [line for line in run.log if str(tree.root) in line and not line.startswith("execve")]
    writing = [line for line in on_the_node if re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE)", line)]
    assert [line for line in writing if '"lock", O_RDWR|O_NONBLOCK|O_NOFOLLOW|O_CLOEXEC)' not in line] == []  # for NFS
    taken = [number for number, line in enumerate(on_the_node) if line.startswith("flock(") and "LOCK_EX" in line]
    for number in taken:  # whether it can be had: let go with the very next call
        fd = re.escape(on_the_node[number].partition("(")[2].partition(",")[0])
        assert re.match(rf"(flock\({fd}, LOCK_UN\)|close\({fd}\))", on_the_node[number + 1]), on_the_node[number + 1]
    state = [line for line in (on_the_node[number] for number in taken) if "cni-lease-reset>" in line]
    assert len(state) == tree.state.exists(), "strace has seen it look"
