"""The units call the program as it is, and are caged."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import THIS, TOP, Systemd, Tree
from programs import command

from cni_lease_reset import cli
from cni_lease_reset.core.model import PROGRAM
from cni_lease_reset.edges.node import Node

UNIT = TOP / "packaging/systemd/cni-lease-reset.service"
METRICS = TOP / "packaging/systemd/cni-lease-reset-metrics.service"


def writable(unit: Path) -> set[str]:
    """Where a unit may write; "-" means that the directory need not be there."""
    return set(" ".join(re.findall(r"^ReadWritePaths=(.*)$", unit.read_text(), re.MULTILINE)).split())


def measuring() -> list[str]:
    """The arguments of the metrics' unit."""
    (line,) = re.findall(r"^ExecStart=(.*)$", METRICS.read_text(), re.MULTILINE)
    program, *arguments = shlex.split(line)
    assert program == PROGRAM
    return arguments


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


def test_boot_may_write_beside_the_leases_and_nowhere_else() -> None:
    assert writable(UNIT) == {"-/var/lib/cni"}


def test_systemd_takes_the_metrics_unit_and_its_timer_without_a_warning(tmp_path: Path) -> None:
    units = [METRICS, METRICS.with_suffix(".timer")]
    for unit in units:  # the command is not installed here: let the unit name a program that is
        (tmp_path / unit.name).write_text(unit.read_text().replace(f"{PROGRAM} ", "/usr/bin/true "))
    verify = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in units)]
    done = subprocess.run(verify, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_metrics_unit_may_write_the_file_that_it_names() -> None:
    verb, option = measuring()
    assert verb == "status"
    folders = [path.removeprefix("-") for path in writable(METRICS)]
    assert any(option.startswith(f"--metrics={folder}/") for folder in folders)


@pytest.mark.parametrize("way", ["a FIFO", "no YAML", "everybody's", "another setting", "a folder"])
def test_no_configuration_silences_the_metrics(tree: Tree, way: str) -> None:
    tree.config({"no YAML": "networks: [\n", "another setting": "metrics_file: /x.prom\n"}.get(way, "keep_resets: 2\n"))
    path = tree.root / "etc/cni-lease-reset/config.yaml"
    if way == "everybody's":
        path.chmod(0o666)
    elif way in ("a FIFO", "a folder"):
        path.unlink()
        (os.mkfifo if way == "a FIFO" else os.mkdir)(path)
    tree.lease("10.52.0.2")
    file = tree.root / measuring()[1].removeprefix("--metrics=/")
    file.parent.mkdir(parents=True)
    assert command(tree.node, "boot").returncode == 78
    done = command(tree.node, *measuring())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = file.read_text()
    assert 'cni_lease_reset_boot_result{result="misconfigured"} 1\n' in text
    assert 'cni_lease_reset_leases{network="k8s-pod-network",family="ipv4"} 1\n' in text
    assert re.search(r"^cni_lease_reset_attention_needed [1-9]", text, re.MULTILINE)
