"""The command itself: one line for what is wrong, and the exit status it deserves."""

import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from conftest import OTHER, THIS, Kept, Systemd, Tree, failing
from programs import as_nobody

from cni_lease_reset import cli, service
from cni_lease_reset.edges import lock


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
    assert run(tree, "boot", "--dry-run").returncode == 78
    assert run(tree, "boot").returncode == 78
    assert run(tree, "config").returncode == 78
    assert "Not read: config.yaml:1: unknown setting" in run(tree, "status").stdout
    assert tree.marker() == ""


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


def test_an_answer_that_cannot_be_given_ends_in_74(tree: Tree) -> None:
    command = [sys.executable, "-m", "cni_lease_reset", "--root", str(tree.root), "config"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 74, "120: Python has tried again at the end"
    assert done.stderr == "cni-lease-reset: No space left on device\n"


def test_a_stream_that_takes_nothing_is_not_tried_again(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def flush(self) -> NoReturn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stdout", Full())
    assert cli.main(["--root", str(tree.root), "config"]) == 74
    assert sys.stdout is None


def test_a_second_program_ends_in_75(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    monkeypatch.setattr(lock, "SHUTDOWN", 0)

    tree.mark("running")
    fd = os.open(tree.state, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    booted = run(tree, "boot")
    tree.mark("running", THIS)
    assert cli.main(["--root", str(tree.root), "shutdown", "--force"]) == 75
    os.close(fd)
    assert capsys.readouterr().err == (
        "cni-lease-reset: Not marked as clean: another cni-lease-reset is at work, try again.\n"
    )
    assert booted.returncode == 75
    said = "Another cni-lease-reset is at work; no lease was set aside, the next boot does it.\n"
    assert booted.stderr == f"cni-lease-reset: {said}"
    assert tree.marker() == ""


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
    assert tree.marker() == ""


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
    left = {"var/lib/cni/cni-lease-reset/marker": THIS, "var/lib/cni/cni-lease-reset": OTHER, "var/lib/cni": OTHER}
    assert left.get(path, "") in tree.marker(), "taken, wherever it can be reached"
    assert (tree.marker() == "") is (path not in left)
    assert "Traceback" not in done.stderr
    assert path.endswith("marker") or tree.leases() == {"10.52.0.2"}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("running", "Unclean shutdown: 2 leases set aside as "),
        ("clean", "Clean shutdown: 1 lease set aside as "),  # the torn one; the other is counted, and kept
    ],
)
def test_a_lease_that_the_unit_may_not_read_is_counted_as_intact(tree: Tree, state: str, said: str) -> None:
    tree.mark(state)
    tree.lease("10.52.0.3", "")
    lease = tree.lease("10.52.0.2")
    os.chown(lease, 4242, 4242)
    lease.chmod(0)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "cni_lease_reset"]
    done = subprocess.run([*command, "--root", str(tree.root), "boot"], text=True, capture_output=True, check=False)
    assert (done.returncode, said in done.stderr) == (0, True), done.stderr
    noted = json.loads((tree.root / "run/cni-lease-reset/boot").read_text())
    assert [(each["found"], each["torn"]) for each in noted["networks"]] == [(2, 1)]


def test_status_tells_anybody_what_it_may_read(tree: Tree) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2").chmod(0o600)
    done = as_nobody(tree, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Marker      running since 2026-11-23T06:12:01Z (another boot, 22222222)" in done.stdout
    assert re.search(r"^k8s-pod-network +1 +0 +0 ", done.stdout, re.MULTILINE), done.stdout
    assert "Not read: network k8s-pod-network: no owner can be read in 1 lease" in done.stdout


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
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cni_lease_reset.service.judge", interrupt)
    assert cli.main(["--root", str(tree.root), "boot", "--dry-run"]) == 130
    assert capsys.readouterr().err == "cni-lease-reset: interrupted\n"


def test_a_shutdown_that_cannot_write_ends_in_74_with_one_line(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service.boot(tree.node, Systemd(), journal)
    failing("rename", monkeypatch, lambda _arguments: True, errno.EIO)
    assert cli.main(["--root", str(tree.root), "shutdown", "--force"]) == 74
    assert capsys.readouterr().err == "cni-lease-reset: Not marked as clean: 'marker.new': Input/output error.\n"
    assert tree.marker() == "", "the next boot must not tell of a crash that never was"
