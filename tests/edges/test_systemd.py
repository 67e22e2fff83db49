"""The real pystemd on a real bus daemon; a stand-in answers in systemd's name, for no systemd runs under a test."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TOP
from programs import STAND_IN, running

from cni_lease_reset.edges.systemd import Answer, Systemd, TransientUnit


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    address = f"unix:path={tmp_path}/bus"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    with running("dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}", "--print-address"):
        yield address


def test_all_units_are_asked_in_one_call(address: str) -> None:
    with running(sys.executable, STAND_IN, address, "running", "rke2-server.service=active"):
        states = Systemd().unit_states(["rke2-server.service", "k3s.service"])
    assert states == Answer({"rke2-server.service": "active", "k3s.service": "inactive"})


@pytest.mark.parametrize(
    ("state", "job", "down"),
    [
        ("running", "shutdown.target#0", False),
        ("stopping", "shutdown.target#0", True),
        ("starting", "shutdown.target#17", True),
        ("degraded", "multi-user.target#1", False),
    ],
)
def test_the_shutdown_is_recognised(address: str, state: str, job: str, down: bool) -> None:
    with running(sys.executable, STAND_IN, address, state, job):
        assert Systemd().going_down() == Answer(down)


def test_what_our_unit_is_ordered_before_is_asked_by_its_name(address: str) -> None:
    with running(sys.executable, STAND_IN, address, "running", "rke2-server.service=active", "k3s.service=x"):
        answer = Systemd().ordered_before("cni-lease-reset.service")
    assert answer == Answer(("rke2-server.service", "k3s.service"))


def test_the_distributions_own_pystemd_and_yaml_serve_too(address: str) -> None:
    code = (
        "from cni_lease_reset.edges import config, systemd\n"
        "config.parse(b'keep_resets: 5')\n"
        "print(systemd.Systemd().unit_states(['k3s.service']), systemd.Systemd().going_down())\n"
    )
    with running(sys.executable, STAND_IN, address, "stopping", "k3s.service=active"):
        command = ["/usr/bin/python3", "-c", code]
        done = subprocess.run(command, cwd=TOP, text=True, capture_output=True, check=False)
    expected = "Answer(value={'k3s.service': 'active'}, remark=None) Answer(value=True, remark=None)\n"
    assert (done.stdout, done.stderr) == (expected, "")


def test_a_transient_unit_reaches_systemd_as_it_was_meant(address: str) -> None:
    command, afterwards = ("/usr/bin/cni-lease-reset", "recover"), ("/usr/bin/systemctl", "start", "k3s.service")
    unit = TransientUnit("x.service", "Do it", ("k3s.service", "a.service"), command, afterwards, "/run/x", 300)
    with running(sys.executable, STAND_IN, address, "running") as printed:
        Systemd().start(unit)
        name, mode, properties, others = json.loads(printed.readline())
    assert (name, mode, others) == ("x.service", "fail", [])
    assert dict(properties) == {
        "Description": ["s", "Do it"],
        "Type": ["s", "oneshot"],
        "CollectMode": ["s", "inactive-or-failed"],
        "Before": ["as", ["k3s.service", "a.service"]],
        "TimeoutStartUSec": ["t", 300_000_000],
        "ExecStart": ["a(sasb)", [[command[0], list(command), False]]],
        "ExecStopPost": ["a(sasb)", [[afterwards[0], list(afterwards), False]]],
        "StandardOutputFileToAppend": ["s", "/run/x"],
    }


@pytest.mark.parametrize(
    ("unit", "at_work"), [("x.service=activating", True), ("x.service=failed", False), ("x.service#17", True)]
)
def test_a_unit_is_at_work_while_it_runs_or_a_job_of_it_waits(address: str, unit: str, at_work: bool) -> None:
    with running(sys.executable, STAND_IN, address, "running", unit):
        assert Systemd().at_work("x.service") is at_work
