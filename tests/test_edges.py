"""The world outside: a real journal socket, real D-Bus errors, real processes, the command itself."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import OTHER, SANDBOX, THIS, Systemd, Tree

from cni_lease_reset import cli
from cni_lease_reset.core.errors import RefusedError
from cni_lease_reset.core.model import Config, Entry
from cni_lease_reset.edges import guard, journald, systemd
from cni_lease_reset.edges import sandboxes as living
from cni_lease_reset.edges.journald import Journal
from cni_lease_reset.edges.node import Node


def decoded(datagram: bytes) -> dict[str, str]:
    """Decode journald's native protocol."""
    fields: dict[str, str] = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[9 + length :]
        fields[key.decode()] = value.decode()
        datagram = rest
    return fields


def test_an_entry_reaches_a_real_socket_with_all_its_fields(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        Journal(Node("/"), path=path).send(Entry("id", 5, "two\nlines", (("CNI_VERDICT", "unclean"),)))
        fields = decoded(server.recv(4096))
    assert fields == {
        "MESSAGE": "two\nlines",
        "MESSAGE_ID": "id",
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "cni-lease-reset",
        "CNI_VERDICT": "unclean",
    }


@pytest.mark.parametrize(("stream", "prefix"), [("1:2", "<3>"), (None, "cni-lease-reset: ")])
def test_without_journald_the_text_goes_to_stderr(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stream: str | None,
    prefix: str,
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if stream:
        monkeypatch.setenv("JOURNAL_STREAM", stream)
    Journal(Node("/"), path=str(tmp_path / "nobody")).send(Entry("id", 3, "text"))
    assert capsys.readouterr().err == f"{prefix}text\n"


def test_a_long_message_is_one_line_of_systemctl_status_and_whole_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    entry = Entry("id", 3, 200 * "x")
    assert journald.serialise(entry).splitlines()[0].decode() == f"MESSAGE={99 * 'x'}…"
    Journal(Node("/tree")).send(entry)
    assert capsys.readouterr().err == f"cni-lease-reset: {200 * 'x'}\n"


def test_a_full_journal_socket_does_not_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        journal = Journal(Node("/"), path=path)
        while "text" not in capsys.readouterr().err:
            journal.send(Entry("id", 3, "text"))


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


def test_a_proc_that_cannot_be_listed_proves_nothing(tree: Tree) -> None:
    (tree.root / "proc").rename(tree.root / "gone")
    assert "cannot be listed" in str(living.processes(tree.node).unproven)


def test_a_process_that_ends_meanwhile_is_no_pod(tree: Tree) -> None:
    (tree.root / "proc/99").mkdir()
    assert living.processes(tree.node) == living.Processes()


def test_several_pods_are_counted(tree: Tree) -> None:
    tree.shim(pid=1)
    tree.shim(pid=2)
    assert guard.objection(tree.node, Config(), Systemd())[0] == f"pod sandbox {SANDBOX[:13]} and 1 more alive"


def run(tree: Tree, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    command = [sys.executable, "-m", "cni_lease_reset", "--root", str(tree.root), *arguments]
    return subprocess.run(command, text=True, capture_output=True, check=False)


def test_the_command_boots_tells_and_shuts_down(tree: Tree) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    booted = run(tree, "boot")
    assert (booted.returncode, booted.stdout) == (0, "")
    assert "Unclean shutdown: 1 lease set aside as 1-" in booted.stderr
    status = run(tree, "status")
    assert status.returncode == 0
    assert "unclean: the last boot never got to mark its shutdown as clean" in status.stdout
    assert "1 found, 1 set aside, 0 kept, 0 torn" in status.stdout
    assert all(len(line) <= 80 for line in status.stdout.splitlines())
    document = json.loads(run(tree, "status", "--json").stdout)
    assert (document["version"], document["boot"]["verdict"], document["marker"]["state"]) == (1, "unclean", "running")
    assert document["resets"][0]["leases"] == 1
    assert run(tree, "shutdown", "--force").returncode == 0
    assert "state=clean" in tree.marker()
    assert run(tree, "config").stdout.startswith("networks: [k8s-pod-network, cbr0]  # default\n")


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (("bot",), 2, "invalid choice: 'bot'"),
        (("boot", "--dry"), 2, "unrecognized arguments: --dry"),
        ((), 2, "the following arguments are required: VERB"),
    ],
)
def test_bad_arguments_get_one_line(tree: Tree, arguments: tuple[str, ...], status: int, line: str) -> None:
    done = run(tree, *arguments)
    assert done.returncode == status
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def test_force_needs_a_root(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["shutdown", "--force"]) == 2
    assert "--force needs --root" in capsys.readouterr().err


def test_a_missing_root_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--root", "/nowhere", "status"]) == 2
    assert capsys.readouterr().err == "cni-lease-reset: --root: '/nowhere' is not a directory\n"


def test_an_invalid_configuration_ends_in_78(tree: Tree) -> None:
    tree.config("network: [x]\n")
    tree.mark("running")
    assert run(tree, "boot").returncode == 78
    assert run(tree, "config").returncode == 78
    assert run(tree, "boot", "--dry-run").returncode == 78
    assert "Not read: config.yaml:1: unknown setting" in run(tree, "status").stdout
    assert OTHER in tree.marker()


def test_where_nobody_listens_the_work_is_done_and_the_status_is_the_works(tree: Tree) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    command = [sys.executable, "-m", "cni_lease_reset", "--root", str(tree.root)]
    with open("/dev/full", "w") as full:
        assert subprocess.run([*command, "boot"], stderr=full, check=False).returncode == 0
        assert subprocess.run([*command, "shutdown"], stderr=full, check=False).returncode == 0
        assert subprocess.run([*command, "boots"], stderr=full, check=False).returncode == 2
        told = subprocess.run([*command, "status"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert tree.set_aside() == {"10.52.0.2"}
    assert (told.returncode, told.stderr) == (74, "cni-lease-reset: No space left on device\n")


def test_an_answer_that_cannot_be_given_ends_in_74(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(io.FileIO(full, "w", closefd=False))))
    assert cli.main(["--root", str(tree.root), "config"]) == 74
    os.close(full)
    assert sys.stdout is None, "or Python would try again at the end, and exit with 120"
    assert capsys.readouterr().err == "cni-lease-reset: No space left on device\n"


def test_a_second_program_ends_in_75(tree: Tree) -> None:
    import fcntl

    tree.mark("running")
    fd = os.open(tree.state, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    booted, stopped = run(tree, "boot"), run(tree, "shutdown")
    os.close(fd)
    assert (booted.returncode, stopped.returncode) == (75, 75)
    assert "Another cni-lease-reset is at work; nothing was changed." in booted.stderr


def test_no_permission_ends_in_74_with_one_line(tree: Tree) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    os.chown(tree.network, 4242, 4242)
    tree.network.chmod(0o700)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "cni_lease_reset"]
    done = subprocess.run([*command, "--root", str(tree.root), "boot"], text=True, capture_output=True, check=False)
    assert done.returncode == 74, done.stderr
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert tree.leases() == {"10.52.0.2"}
    assert OTHER in tree.marker()


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("var/lib/cni/cni-lease-reset/marker", 0, "Damaged marker: 1 lease set aside"),
        ("var/lib/cni/cni-lease-reset", 74, "Nothing could be judged or set aside: "),
        ("var/lib/cni", 74, "Nothing could be judged or set aside: "),
        ("var/lib/cni/networks", 74, "Unclean shutdown, not all was done: "),
        ("etc/cni-lease-reset/config.yaml", 78, "Unclean shutdown, leases kept: "),
        (
            "run/cni-lease-reset",
            0,
            "/run/cni-lease-reset/boot cannot be read (Permission denied): taken as if boot had run",
        ),
    ],
)
def test_what_the_unit_may_not_read_is_one_line(tree: Tree, path: str, status: int, said: str) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.config("keep_resets: 2\n")
    (tree.root / "run/cni-lease-reset").mkdir(parents=True)
    os.chown(tree.root / path, 4242, 4242)  # another's, so that being root without capabilities opens nothing
    (tree.root / path).chmod(0)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "cni_lease_reset"]
    done = subprocess.run([*command, "--root", str(tree.root), "boot"], text=True, capture_output=True, check=False)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert path.endswith("marker") or "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert (OTHER in tree.marker()) is not path.endswith("marker")
    assert path.endswith("marker") or tree.leases() == {"10.52.0.2"}


@pytest.mark.parametrize(
    ("state", "status", "said"),
    [
        ("running", 0, "Unclean shutdown: 1 lease set aside"),  # no need to read what is due anyway
        ("clean", 74, "Clean shutdown, not all was done: "),
    ],
)
def test_a_lease_that_the_unit_may_not_read(tree: Tree, state: str, status: int, said: str) -> None:
    tree.mark(state)
    lease = tree.lease("10.52.0.2")
    os.chown(lease, 4242, 4242)
    lease.chmod(0)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "cni_lease_reset"]
    done = subprocess.run([*command, "--root", str(tree.root), "boot"], text=True, capture_output=True, check=False)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr


def test_status_tells_anybody_what_it_may_read(tree: Tree) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2").chmod(0o600)
    for parent in (tree.root, *tree.root.parents):  # pytest's own folders are root's alone
        if parent.stat().st_mode & 0o077 == 0:
            parent.chmod(0o755)
    # Our modules are imported before it turns into nobody, who may not read a checkout below root's home.
    code = (
        "import os, sys\n"
        "from cni_lease_reset import cli\n"
        "from cni_lease_reset.commands import display\n"
        "os.setgroups([])\n"
        "os.setuid(65534)\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = ["/usr/bin/python3", "-c", code, "--root", str(tree.root), "status"]
    top = Path(__file__).parent.parent
    done = subprocess.run(command, text=True, capture_output=True, check=False, env={}, cwd=top)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Marker      running since 2026-11-23T06:12:01Z (another boot, 22222222)" in done.stdout
    assert "Not read: network k8s-pod-network: '10.52.0.2': Permission denied" in done.stdout


def test_a_node_without_a_boot_id_is_told_and_loses_its_clean_mark(tree: Tree) -> None:
    tree.mark("clean")
    (tree.root / "proc/sys/kernel/random/boot_id").unlink()
    done = run(tree, "boot")
    assert done.returncode == 74
    assert "Nothing could be judged or set aside" in done.stderr
    assert not (tree.state / "marker").exists()


def test_a_fault_of_ours_is_one_line(
    tree: Tree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cni_lease_reset.service.judge", lambda *_a, **_o: 1 / 0)
    assert cli.main(["--root", str(tree.root), "boot"]) == 1
    assert "Unexpected, please report: ZeroDivisionError" in capsys.readouterr().err


def test_an_interrupt_is_no_traceback(
    tree: Tree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cni_lease_reset.service.rehearse", interrupt)
    assert cli.main(["--root", str(tree.root), "boot", "--dry-run"]) == 130
    assert capsys.readouterr().err == "cni-lease-reset: interrupted\n"


def test_a_storm_of_adds_beside_boot_hands_no_address_out_twice(tree: Tree) -> None:
    from conftest import HostLocal, Kept

    from cni_lease_reset import service

    tree.mark("running")
    plugin = HostLocal(tree)
    for number in range(20):
        plugin.add(f"old{number}")
    locked = threading.Event()

    class Storm(Systemd):
        """Answers the guard's question, which comes while host-local's lock is held."""

        def unit_states(self, units: object) -> systemd.Answer[dict[str, str]]:
            locked.set()
            return systemd.Answer(dict.fromkeys(Config().runtime_units, "inactive"))

    given: list[str] = []

    def storm(name: str) -> None:
        locked.wait()
        given.extend(plugin.add(f"{name}-{number}") for number in range(10))

    threads = [threading.Thread(target=storm, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    service.boot(tree.node, Storm(), Kept())
    for thread in threads:
        thread.join()
    assert len(given) == len(set(given)) == 40
    assert set(given) <= tree.leases()


def test_the_protocol_has_one_socket() -> None:
    assert journald.SOCKET == "/run/systemd/journal/socket"
    assert THIS != OTHER
