"""``boot --dry-run``: what boot would say, with nothing changed; the scenarios compare the two."""

import os
import subprocess
from collections.abc import Callable, Sequence

import pytest
from conftest import OTHER, THIS, HostLocal, Kept, Systemd, Tree, everything, held_lock
from programs import as_nobody, command

from cni_lease_reset import cli, service
from cni_lease_reset.core.findings import Outcome
from cni_lease_reset.edges import record
from cni_lease_reset.edges.lock import only_one
from cni_lease_reset.edges.node import Node
from cni_lease_reset.edges.systemd import Runtime


def rehearsed(tree: Tree, journal: Kept, manager: Systemd | None = None) -> Outcome:
    """Rehearse a boot that must not change anything."""
    before = everything(tree.root)
    outcome = service.boot(tree.node._replace(rehearsal=True), manager or Systemd(), journal)
    assert everything(tree.root) == before
    return outcome


def old_resets(tree: Tree) -> None:
    for number in range(1, 6):
        tree.put(f"var/lib/cni/cni-lease-reset/set-aside/{number}-20261123T061201Z-22222222/net/10.52.0.2", "")


def an_empty_reset(tree: Tree) -> None:
    (tree.state / "set-aside/1-20261123T061201Z-22222222/net").mkdir(parents=True)


PREPARED: dict[str, Callable[[Tree], object]] = {
    "nothing there": lambda _tree: None,
    "old resets": old_resets,
    "an empty reset": an_empty_reset,
    "a temporary file": lambda tree: tree.put("var/lib/cni/cni-lease-reset/marker.new", "left by a crash"),
    "a directory for everybody": lambda tree: tree.state.chmod(0o755),
    "an unreadable record": lambda tree: tree.put("run/cni-lease-reset/boot", "odd"),
    "a record of the last boot": lambda tree: record.write(tree.node, OTHER),
    "no configuration": lambda tree: tree.config("network: [x]\n"),
    "no boot id": lambda tree: (tree.root / "proc/sys/kernel/random/boot_id").unlink(),
    "a marker that is a directory": lambda tree: (tree.state / "marker").mkdir(),
}


@pytest.mark.parametrize("mark", [None, "clean", "running"])
@pytest.mark.parametrize("prepared", PREPARED)
def test_a_dry_run_changes_nothing_at_all(tree: Tree, mark: str | None, prepared: str) -> None:
    tree.state.mkdir(parents=True)
    if mark is not None and prepared != "a marker that is a directory":
        tree.mark(mark)
    tree.lease("10.52.0.2", "")
    tree.lease("10.52.0.3")
    tree.lease("10.60.0.2", network="not-ours")
    PREPARED[prepared](tree)
    before = everything(tree.root)
    done = command(tree.node, "boot", "--dry-run")
    assert everything(tree.root) == before
    expected = {"no configuration": 78, "no boot id": 74}.get(prepared, 0)
    assert (done.returncode, done.stderr) == (expected, "")
    in_the_way = prepared == "a marker that is a directory"  # that a write fails, only writing tells
    assert command(tree.node, "boot").returncode == (74 if in_the_way else expected)


def test_it_tells_what_would_be_refused(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2", "")
    tree.lease("10.52.0.3")
    assert rehearsed(tree, journal, Systemd({"k3s.service": "active"})).result == "refused"
    assert [entry.message for entry in journal.entries] == [
        "Clean shutdown, leases kept: k3s.service is active, pods may live"
    ]


def test_it_needs_no_state_and_finds_nothing_to_do(tree: Tree, journal: Kept) -> None:
    assert rehearsed(tree, journal).result == "nothing-due"
    tree.network.parent.mkdir(parents=True)
    tree.network.symlink_to("/")
    tree.lease("10.60.0.1", network="other")
    record.write(tree.node, THIS)
    assert rehearsed(tree, journal).judgement.verdict == "same-boot"
    assert [entry.message for entry in journal.entries] == [
        "No marker: nothing to set aside (no leases), 0 leases kept.",
        "Same boot: the kernel never went down, pods may live; nothing set aside.",
    ]


@pytest.mark.parametrize("mark", ["clean", "running"])
def test_it_sees_that_a_plugin_is_at_work(tree: Tree, host_local: HostLocal, mark: str) -> None:
    tree.mark(mark)
    host_local.add("pod")
    tree.lease("10.52.0.9", "")
    with held_lock(tree):
        before = everything(tree.root)
        done = command(tree.node, "boot", "--dry-run")
        assert everything(tree.root) == before
    assert (done.returncode, done.stderr) == (74, "")
    assert "not all was done: k8s-pod-network: busy: another" in " ".join(done.stdout.split())


def test_it_sees_that_one_of_ours_is_at_work(tree: Tree) -> None:
    tree.mark("running")
    with only_one(tree.node):
        done = command(tree.node, "boot", "--dry-run")
    assert (done.returncode, done.stderr) == (75, "")
    assert "Another cni-lease-reset is at work; no lease was set aside," in done.stdout


def test_it_holds_no_lock_while_it_looks(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    (tree.network / "lock").touch()

    class Asked(Systemd):
        def runtime(self, units: Sequence[str]) -> tuple[Runtime | None, str | None]:
            for path in (tree.state, tree.network / "lock"):
                subprocess.run(["flock", "--nonblock", path, "true"], check=True)
            return super().runtime(units)

    assert rehearsed(tree, journal, Asked()).total.cleared == 1


def test_anybody_may_ask(tree: Tree) -> None:
    """The modes are those of a real node: our directory is for passing through, leases and their lock are root's."""
    tree.mark("running")
    tree.state.chmod(0o711)
    tree.lease("10.52.0.2").chmod(0o600)
    tree.lease("lock", "").chmod(0o640)
    done = as_nobody(tree, "boot", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Unclean shutdown: 1 lease set aside as a new reset, 0 kept.\n" in done.stdout


@pytest.mark.parametrize(("user", "what"), [(0, "A run now would say:"), (1000, "without root")])
def test_whoever_is_not_root_is_told_what_that_means(
    tree: Tree, user: int, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(Node, "is_this_machine", True)
    monkeypatch.setattr(cli, "Systemd", Systemd)
    assert cli.main(["--root", str(tree.root), "boot", "--dry-run"]) == 0
    assert what in capsys.readouterr().out.splitlines()[0]


def test_its_answer_fits_a_terminal_and_breaks_no_name(tree: Tree) -> None:
    tree.mark("running")
    tree.config("networks: ['*']\n")
    name = f"{'long-' * 40}network"
    tree.lease("10.52.0.2", network=name)
    said = command(tree.node, "boot", "--dry-run").stdout
    assert name in said
    assert [line for line in said.splitlines() if len(line) > 80 and name not in line] == []
