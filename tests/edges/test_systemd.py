"""The real pystemd on a real bus daemon, and systemctl where D-Bus does not answer.

A stand-in answers in systemd's name, for no systemd runs under a test.
"""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TOP, Kept, Tree
from programs import STAND_IN, running

from cni_lease_reset import service
from cni_lease_reset.core.errors import RefusedError
from cni_lease_reset.edges import systemd
from cni_lease_reset.edges.systemd import Answer, NoSystemd, Systemd, TransientUnit


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


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "bus"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")
    monkeypatch.setattr(systemd, "SECONDS", 0.2)
    yield path
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0), "no alarm is left behind"


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "systemctl"
    monkeypatch.setattr(systemd, "_SYSTEMCTL", str(path))
    return path


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def listening(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    return server


def test_a_missing_bus_and_no_systemctl_are_told(bus: Path, systemctl: Path) -> None:
    answer = systemd.Systemd().unit_states(["k3s.service"])
    assert answer.value is None
    assert answer.remark is not None
    assert answer.remark.startswith("D-Bus cannot be reached")
    assert answer.remark.endswith(f"there is no {systemctl}")


def test_a_bus_that_refuses_leads_to_systemctl(bus: Path, systemctl: Path) -> None:
    program(systemctl, "printf 'active\\n\\ninactive\\n'")
    with listening(bus):
        answer = systemd.Systemd().unit_states(["a.service", "b.service"])
    assert answer.value == {"a.service": "active", "b.service": "inactive"}
    assert "asked systemctl instead" in str(answer.remark)


def test_a_bus_that_never_answers_is_left_in_time(bus: Path, systemctl: Path) -> None:
    program(systemctl, 'case "$*" in *SystemState*) echo stopping;; esac')
    with listening(bus) as server:
        server.listen()
        answer = systemd.Systemd().going_down()
    assert answer.value is True
    assert "D-Bus did not answer within" in str(answer.remark)


@pytest.mark.parametrize(
    ("text", "down"),
    [
        ("case $* in *SystemState*) echo running;; *) echo 0;; esac", False),
        ("case $* in *SystemState*) echo starting;; *) echo 17;; esac", True),
        ("exit 1", None),
        ("exec sleep 60", None),
    ],
)
def test_systemctl_answers_for_the_shutdown(bus: Path, systemctl: Path, text: str, down: bool | None) -> None:
    program(systemctl, text)
    assert systemd.Systemd().going_down().value is down


def test_systemctl_answers_for_the_order_of_units(bus: Path, systemctl: Path) -> None:
    program(systemctl, 'case "$*" in *Before*our.service) echo k3s.service shutdown.target;; esac')
    assert systemd.Systemd().ordered_before("our.service").value == ("k3s.service", "shutdown.target")


def test_without_pystemd_systemctl_is_asked(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pystemd.dbusexc", None)
    program(systemctl, "echo failed")
    answer = systemd.Systemd().unit_states(["a.service"])
    assert answer.value == {"a.service": "failed"}
    assert "pystemd cannot be imported" in str(answer.remark)


def test_a_systemctl_that_cannot_run_is_told(bus: Path, systemctl: Path) -> None:
    systemctl.write_text("")
    assert "systemctl failed" in str(systemd.Systemd().going_down().remark)


@pytest.mark.parametrize(
    ("printed", "at_work"),
    [
        ("ActiveState=inactive\\nJob=", False),
        ("Job=0\\nActiveState=failed", False),
        ("ActiveState=inactive\\nJob=17", True),
        ("ActiveState=activating\\nJob=0", True),
        ("ActiveState=inactive", False),
    ],
)
def test_systemctl_tells_whether_a_unit_is_at_work(bus: Path, systemctl: Path, printed: str, at_work: bool) -> None:
    program(systemctl, f"printf '{printed}\\n'")
    assert systemd.Systemd().at_work("x.service") is at_work


def test_units_that_cannot_be_stopped_are_a_refusal(systemctl: Path) -> None:
    program(systemctl, 'test "$*" = "stop -- a.service"')
    systemd.Systemd().stop(["a.service"])
    program(systemctl, "echo Job canceled. >&2; exit 1")
    with pytest.raises(RefusedError, match=r"^a\.service, b\.service cannot be stopped: Job canceled\.$"):
        systemd.Systemd().stop(["a.service", "b.service"])


def test_without_a_bus_systemd_run_starts_the_transient_unit(
    bus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "systemd-run"
    monkeypatch.setattr(systemd, "_SYSTEMD_RUN", str(run))
    program(run, f'printf "%s\\n" "$@" > {tmp_path}/arguments')
    unit = systemd.TransientUnit("x.service", "Do it", ("k3s.service",), ("/bin/a", "b"), ("/bin/c",), "/run/x", 300)
    systemd.Systemd().start(unit)
    assert (tmp_path / "arguments").read_text().splitlines() == [
        "--quiet",
        "--no-block",
        "--unit=x.service",
        "--description=Do it",
        "--property=Type=oneshot",
        "--property=CollectMode=inactive-or-failed",
        "--property=Before=k3s.service",
        "--property=TimeoutStartSec=300",
        "--property=ExecStopPost=/bin/c",
        "--property=StandardOutput=append:/run/x",
        "--",
        "/bin/a",
        "b",
    ]
    program(run, "echo Unit x.service was already loaded. >&2; exit 1")
    with pytest.raises(RefusedError, match=r"x\.service cannot be started: .* already loaded"):
        systemd.Systemd().start(unit)


def test_below_a_root_no_systemd_runs(tree: Tree, journal: Kept) -> None:
    tree.lease("10.52.0.2")
    assert service.boot(tree.node, NoSystemd(), journal).result == "cleared"
    assert not service.shutdown(tree.node, NoSystemd(), journal)
