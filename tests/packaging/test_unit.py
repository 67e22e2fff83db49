"""The unit calls the program as it is, and is caged."""

import re
import subprocess

import pytest
from conftest import THIS, TOP, Systemd, Tree

from cni_lease_reset import cli
from cni_lease_reset.core.model import PROGRAM
from cni_lease_reset.edges.node import Node

UNIT = TOP / "packaging/systemd/cni-lease-reset.service"


def test_what_the_unit_runs_means_this_machine(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.mark("clean")
    monkeypatch.setattr(cli, "Node", lambda: tree.node)
    monkeypatch.setattr(cli, "Systemd", lambda: Systemd(down=True))
    assert Node() == Node("/")
    assert cli.main(["boot"]) == 0
    assert cli.main(["shutdown"]) == 0
    assert "state=clean" in tree.marker()
    assert THIS in tree.marker()


def test_the_unit_calls_verbs_that_exist() -> None:
    from cni_lease_reset.arguments import parser

    calls = re.findall(r"^Exec(?:Start|Stop)=/usr/bin/cni-lease-reset (.*)$", UNIT.read_text(), re.MULTILINE)
    assert calls == ["boot", "shutdown"]
    for call in calls:
        assert parser().parse_args([call]).verb == call


def test_the_unit_is_caged() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=12", str(UNIT)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]


def test_the_program_is_where_the_unit_looks_for_it() -> None:
    assert f"ExecStart={PROGRAM} boot\n" in UNIT.read_text()
