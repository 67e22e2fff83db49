"""The real pystemd on a real bus daemon, and systemctl where D-Bus does not answer.

A stand-in answers in systemd's name, for no systemd runs under a test.
"""

import resource
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TOP, Kept, Tree
from programs import STAND_IN, running

from cni_lease_reset import service
from cni_lease_reset.edges import systemd
from cni_lease_reset.edges.systemd import Manager, Runtime, Systemd, Unit

ABSENT = Unit("inactive", exists=False, has_run=False)
RUNTIME = pytest.mark.parametrize(
    ("state", "known", "expected"),
    [
        pytest.param(
            "running",
            ["rke2-server.service=active", "rke2-server.service@17"],
            Runtime((Unit("active", exists=True, has_run=True), ABSENT), starting=False),
            id="up",
        ),
        pytest.param(
            "degraded",
            ["k3s.service=failed", "k3s.service@17"],
            Runtime((ABSENT, Unit("failed", exists=True, has_run=True)), starting=False),
            id="was up",
        ),
        pytest.param(
            "starting",
            ["k3s.service=inactive"],
            Runtime((ABSENT, Unit("inactive", exists=True, has_run=False)), starting=True),
            id="never was up",
        ),
        pytest.param("initializing", [], Runtime((ABSENT, ABSENT), starting=True), id="none is there"),
        pytest.param(
            "running",
            ["k3s.service>k3s-node.service", "k3s-node.service=active", "k3s-node.service@17"],
            Runtime((ABSENT, Unit("active", exists=True, has_run=True)), starting=False),
            id="by an alias",
        ),
    ],
)
UNITS = ("rke2-server.service", "k3s.service")


BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "busconfig.dtd">
<busconfig>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    address = f"unix:abstract={tmp_path}/bus"  # anybody reaches it, whatever the directories' modes
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    configuration = tmp_path / "bus.conf"
    configuration.write_text(BUS.format(address=address))
    with running("dbus-daemon", f"--config-file={configuration}", "--nofork", "--nopidfile", "--print-address"):
        yield address


@RUNTIME
def test_the_units_of_the_runtime_are_asked_over_d_bus(
    address: str, state: str, known: list[str], expected: Runtime
) -> None:
    with running(sys.executable, STAND_IN, address, state, *known):
        assert Systemd().runtime(UNITS) == (expected, None)


WITHOUT_BUS = """
import sys
sys.modules["pystemd"] = sys.modules["pystemd.dbuslib"] = None
from cni_lease_reset.edges.systemd import Systemd
"""


# As root systemctl speaks to PID 1's own socket, and since 257 to nothing else; anybody else has the bus.
SURROUNDINGS = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
echo '#!/bin/sh' >/run/systemctl
echo 'exec setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/systemctl "$@"' >>/run/systemctl
chmod 0755 /run/systemctl
exec "$@"
"""


def as_if_systemd_ran(code: str) -> str:
    """What a program prints on a machine that looks as if systemd ran there."""
    nobodys = "from cni_lease_reset.edges import systemd; systemd._SYSTEMCTL = '/run/systemctl'"
    command = ["unshare", "--mount", "sh", "-c", SURROUNDINGS, "sh", sys.executable, "-c", f"{nobodys}\n{code}"]
    done = subprocess.run(command, cwd=TOP, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@RUNTIME
def test_the_real_systemctl_says_the_same(address: str, state: str, known: list[str], expected: Runtime) -> None:
    with running(sys.executable, STAND_IN, address, state, *known):
        told = as_if_systemd_ran(f"{WITHOUT_BUS}print(Systemd().runtime({UNITS}))")
    assert told.startswith(f"({expected}, 'D-Bus cannot be asked (ModuleNotFoundError: ")


SHUTDOWN = pytest.mark.parametrize(
    ("state", "job", "down"),
    [
        ("running", "shutdown.target#0", False),
        ("stopping", "shutdown.target#0", True),
        ("starting", "shutdown.target#17", True),
        ("degraded", "multi-user.target#1", False),
    ],
)


@SHUTDOWN
def test_the_shutdown_is_recognised(address: str, state: str, job: str, down: bool) -> None:
    with running(sys.executable, STAND_IN, address, state, job):
        assert Systemd().going_down() == (down, None)


@SHUTDOWN
def test_the_real_systemctl_recognises_it_too(address: str, state: str, job: str, down: bool) -> None:
    with running(sys.executable, STAND_IN, address, state, job):
        told = as_if_systemd_ran(f"{WITHOUT_BUS}print(Systemd().going_down())")
    assert told.startswith(f"({down}, 'D-Bus cannot be asked (ModuleNotFoundError: ")


def test_the_stand_in_answers_for_an_alias_under_the_units_own_name(address: str) -> None:
    """As the real one does."""
    code = (
        "from pystemd.dbuslib import DBus, apply_signature\n"
        "from cni_lease_reset.edges.systemd import _SYSTEMD\n"
        "with DBus() as bus:\n"
        "    names = apply_signature(b'as', [[b'x.service', b'k3s.service']])\n"
        "    print([row[0].decode() for row in bus.call_method(*_SYSTEMD, b'ListUnitsByNames', names).body])\n"
    )
    with running(sys.executable, STAND_IN, address, "running", "k3s.service>node.service", "node.service=active"):
        done = subprocess.run([sys.executable, "-c", code], cwd=TOP, text=True, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == ("['x.service', 'node.service']\n", "")


def test_the_distributions_own_pystemd_and_yaml_serve_too(address: str) -> None:
    code = (
        "from cni_lease_reset.edges import config, systemd\n"
        "config.parse(b'keep_resets: 5')\n"
        "print(systemd.Systemd().runtime(['k3s.service']), systemd.Systemd().going_down())\n"
    )
    with running(
        sys.executable, STAND_IN, address, "running", "k3s.service=active", "k3s.service@5", "shutdown.target#7"
    ):
        command = ["/usr/bin/python3", "-c", code]
        done = subprocess.run(command, cwd=TOP, text=True, capture_output=True, check=False)
    up = (Runtime((Unit("active", exists=True, has_run=True),), starting=False), None)
    assert (done.stdout, done.stderr) == (f"{up} {(True, None)}\n", "")


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "bus"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")
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
    answer = Systemd().runtime(["k3s.service"])
    assert answer[0] is None
    assert answer[1] is not None
    assert answer[1].startswith("D-Bus cannot be asked (")
    assert answer[1].endswith(f"systemctl failed ('{systemctl}': No such file or directory)")


SHOWN = (
    "ActiveState=active\\nLoadState=loaded\\nInactiveExitTimestampMonotonic=17\\n\\n"
    "LoadState=not-found\\nActiveState=inactive\\nInactiveExitTimestampMonotonic=0\\n"
)
TARGET = "ActiveState=inactive\\nLoadState=loaded\\nInactiveExitTimestampMonotonic=0\\n"
TOLD = Runtime((Unit("active", exists=True, has_run=True), ABSENT), starting=False)


def shows(path: Path, system_state: str = "running") -> None:
    program(path, f'case "$*" in *SystemState*) echo SystemState={system_state};; *) printf "{SHOWN}";; esac')


def test_a_bus_that_refuses_leads_to_systemctl(bus: Path, systemctl: Path) -> None:
    shows(systemctl)
    with listening(bus):
        answer = Systemd().runtime(UNITS)
    assert answer[0] == TOLD
    assert str(answer[1]).startswith("D-Bus cannot be asked (")
    assert str(answer[1]).endswith("); asked systemctl instead")


@pytest.mark.parametrize("state", ["initializing", "starting"])
def test_systemctl_tells_that_systemd_is_starting(bus: Path, systemctl: Path, state: str) -> None:
    shows(systemctl, state)
    assert Systemd().runtime(UNITS)[0] == TOLD._replace(starting=True)


@pytest.mark.parametrize("error", [SystemError, ValueError, AttributeError, TypeError, RuntimeError])
@pytest.mark.parametrize("when", ["imported", "called"])
def test_whatever_a_pystemd_raises_leads_to_systemctl(
    bus: Path, systemctl: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], when: str
) -> None:
    """One built for another libsystemd or another Python, or too old for what we call."""

    class Unfit(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            if when == "imported":
                raise error("it does not fit")

            def call() -> None:
                raise error("it does not fit")

            return call

    monkeypatch.setitem(sys.modules, "pystemd", types.ModuleType("pystemd"))
    monkeypatch.setitem(sys.modules, "pystemd.dbuslib", Unfit("pystemd.dbuslib"))
    shows(systemctl)
    answer = Systemd().runtime(UNITS)
    assert answer[0] == TOLD
    assert "asked systemctl instead" in str(answer[1])
    assert "it does not fit" in str(answer[1]) or (when, error) == ("imported", AttributeError)


def test_at_a_shutdown_each_of_the_two_has_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemctl: Path
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    # The first question is answered late, the second one never.
    program(systemctl, "case $* in *SystemState*) sleep 0.1;; *) exec sleep 60;; esac")
    with listening(tmp_path / "bus") as server:
        server.listen()
        began = time.monotonic()
        answer = Systemd().going_down()
        took = time.monotonic() - began
    assert answer[0] is None
    assert 2 + 0.1 + 1 <= took < 30
    assert answer[1] == "D-Bus cannot be asked (no answer within 2 s); systemctl did not answer within 1 s"


def test_a_bus_that_never_answers_is_left_in_time(bus: Path, systemctl: Path) -> None:
    program(systemctl, f'case $* in *SystemState*) echo SystemState=stopping;; *) printf "{TARGET}";; esac')
    with listening(bus) as server:
        server.listen()
        answer = Systemd().going_down()
    assert answer[0] is True
    assert "D-Bus cannot be asked (no answer within" in str(answer[1])


@pytest.mark.parametrize(
    ("text", "down"),
    [
        (f'case $* in *SystemState*) echo SystemState=running;; *) printf "{TARGET}";; esac', False),
        (f'case $* in *SystemState*) echo SystemState=running;; *) printf "{TARGET}Job=0";; esac', False),
        (f'case $* in *SystemState*) echo SystemState=starting;; *) printf "{TARGET}Job=17";; esac', True),
        ("case $* in *SystemState*) echo SystemState=stopping;; *) exit 1;; esac", True),
        ("exit 1", None),
        ("exec sleep 60", None),
    ],
)
def test_systemctl_answers_for_the_shutdown(bus: Path, systemctl: Path, text: str, down: bool | None) -> None:
    program(systemctl, text)
    assert Systemd().going_down()[0] is down


@pytest.mark.parametrize("more", [":", f"printf '\\n{TARGET}\\n{TARGET}'"], ids=["too few", "too many"])
def test_an_answer_about_other_units_than_asked_is_none(bus: Path, systemctl: Path, more: str) -> None:
    program(systemctl, f'case "$*" in *SystemState*) echo SystemState=running;; *) printf "{TARGET}"; {more};; esac')
    assert Systemd().runtime(UNITS)[0] is None
    assert "systemctl answered for" in str(Systemd().runtime(UNITS)[1])


def test_where_no_process_can_be_made_nobody_is_asked(systemctl: Path) -> None:
    from cni_lease_reset.edges import child  # noqa: F401  no file can be opened in a moment

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        answer = Systemd().runtime(UNITS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    asked = "D-Bus cannot be asked (no process can be made: Too many open files); systemctl failed ("
    assert (answer[0], str(answer[1])[: len(asked)]) == (None, asked)


def test_without_pystemd_systemctl_is_asked(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pystemd.dbuslib", None)
    shows(systemctl)
    answer = Systemd().runtime(UNITS)
    assert answer[0] == TOLD
    assert "D-Bus cannot be asked (ModuleNotFoundError: " in str(answer[1])


def test_a_systemctl_that_cannot_run_is_told(bus: Path, systemctl: Path) -> None:
    systemctl.write_text("")
    assert "systemctl failed" in str(Systemd().going_down()[1])


def test_below_a_root_no_systemd_runs(tree: Tree, journal: Kept) -> None:
    tree.lease("10.52.0.2")
    assert service.boot(tree.node, Manager(), journal).result == "cleared"
    assert not service.shutdown(tree.node, Manager(), journal)
