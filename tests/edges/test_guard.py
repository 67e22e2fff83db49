"""Nothing is set aside while pods may live."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import OTHER, SANDBOX, Kept, Systemd, Tree, boot

from cni_lease_reset.core.model import Config
from cni_lease_reset.edges import guard
from cni_lease_reset.edges import sandboxes as living
from cni_lease_reset.edges.node import Node


@pytest.mark.parametrize("state", ["active", "activating", "deactivating", "reloading", "maintenance"])
def test_nothing_is_set_aside_while_a_unit_is_up(tree: Tree, journal: Kept, state: str) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    outcome = boot(tree, journal, Systemd({"rke2-server.service": state}))
    assert (outcome.result, outcome.why) == ("refused", f"rke2-server.service is {state}, pods may live")
    assert tree.leases() == {"10.52.0.2"}
    assert OTHER in tree.marker()


def test_nothing_is_set_aside_while_a_pod_lives(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.shim()
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.why) == ("refused", f"pod sandbox {SANDBOX[:13]} alive")
    assert tree.leases() == {"10.52.0.2"}


def test_containers_of_another_namespace_are_no_pods(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.shim("moby")
    assert boot(tree, journal).result == "cleared"


def test_the_scan_alone_decides_where_systemd_does_not_answer(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    outcome = boot(tree, journal, Systemd(down=None, remark="no bus"))
    assert outcome.result == "cleared"
    assert outcome.remarks[0].text == "no bus; relying on the scan for living pods alone"


def test_a_real_process_is_seen_and_hidden_ones_prove_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "containerd-shim-runc-v2"
    shim.symlink_to(sys.executable)
    command = [str(shim), "-c", "print(flush=True); input()", "-namespace", "k8s.io", "-id", SANDBOX]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert SANDBOX in living.processes(Node("/")).pods
        process.communicate(b"\n")
    assert SANDBOX not in living.processes(Node("/")).pods
    monkeypatch.setattr(os.path, "isdir", lambda path: path != "/proc/1")
    assert "hidden" in str(guard.objection(Node("/"), Config(), Systemd())[0])


def test_several_pods_are_counted(tree: Tree) -> None:
    tree.shim(pid=1)
    tree.shim(pid=2)
    assert guard.objection(tree.node, Config(), Systemd())[0] == f"pod sandbox {SANDBOX[:13]} and 1 more alive"
