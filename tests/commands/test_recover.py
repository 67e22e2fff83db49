"""``recover`` on trees, with the real host-local; the real systemd is the virtual machines'."""

import os
import pty
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import K3S, HostLocal, Kept, Systemd, Tree, held_lock, live, sandbox

from cni_lease_reset import cli
from cni_lease_reset.commands import recover as recovery
from cni_lease_reset.commands import transient
from cni_lease_reset.core.errors import BusyError, InputOutputError, RefusedError
from cni_lease_reset.core.events import MessageId
from cni_lease_reset.core.model import Lease
from cni_lease_reset.edges import durable
from cni_lease_reset.edges import sandboxes as living
from cni_lease_reset.edges.lock import only_one
from cni_lease_reset.edges.node import Node


def picture(tree: Tree) -> dict[str, tuple[int, int, int]]:
    """Every file's inode, time of change and size, but for those of the state directory, which the lock needs."""
    files = (path for path in tree.root.rglob("*") if not path.is_dir())
    found = {str(path.relative_to(tree.root)): path.lstat() for path in files}
    return {name: (s.st_ino, s.st_ctime_ns, s.st_size) for name, s in found.items() if "cni-lease-reset" not in name}


def recover(tree: Tree, *arguments: str) -> int:
    return cli.main(["--root", str(tree.root), "recover", *arguments])


def test_the_leaked_leases_go_and_the_living_stay_untouched(
    tree: Tree, pods: HostLocal, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: value for name, value in picture(tree).items() if "/10.52.0." in name}
    living = {f"10.52.0.{number}" for number in range(22, 30)}
    assert recover(tree, "--yes") == os.EX_OK
    assert tree.leases() == living
    assert tree.set_aside() == {f"10.52.0.{number}" for number in range(2, 22)}
    after = {name: value for name, value in picture(tree).items() if "/10.52.0." in name}
    assert after == {name: value for name, value in before.items() if name.rpartition("/")[2] in living}
    assert pods.add("new") == "10.52.0.30"
    printed = capsys.readouterr()
    assert "Living sandboxes and containers: 8.\nSet aside 20 leases of k8s-pod-network as 1-" in printed.out
    assert "Recovered: 20 leases set aside as 1-" in printed.err


def test_a_second_recover_finds_nothing(tree: Tree, pods: HostLocal, capsys: pytest.CaptureFixture[str]) -> None:
    assert recover(tree, "--yes") == os.EX_OK
    capsys.readouterr()
    before = picture(tree)
    assert recover(tree, "--yes") == os.EX_OK
    assert capsys.readouterr().out == "8 leases: 0 look leaked, 8 of living pods.\nNothing to recover.\n"
    assert picture(tree) == before


def test_torn_leases_go_and_what_is_no_lease_stays(tree: Tree) -> None:
    for address, content in (("10.52.0.2", ""), ("10.52.0.3", "\0" * 70), ("10.52.0.4", "x" * 5000), ("note", "")):
        tree.lease(address, content)
    tree.lease("fd00:52::a", sandbox(1))
    assert recover(tree, "--yes") == os.EX_OK
    assert tree.set_aside() == {"10.52.0.2", "10.52.0.3", "fd00:52::a"}
    assert (tree.network / "note").exists()
    assert (tree.network / "10.52.0.4").exists()


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_rehearsal_shows_the_leaked_leases_and_changes_nothing(
    tree: Tree, capsys: pytest.CaptureFixture[str], utc: None
) -> None:
    for address, content in (
        ("10.52.0.10", sandbox(1)),
        ("10.52.0.9", ""),
        ("fd00::1", sandbox(2)),
        ("10.52.0.7", sandbox(3)),
    ):
        os.utime(tree.lease(address, content), (0, 1_700_000_000))
    live(tree, 3)
    before = picture(tree)
    assert recover(tree, "--dry-run") == os.EX_OK
    assert picture(tree) == before
    assert capsys.readouterr().out == (
        "4 leases: 3 look leaked, 1 of living pods.\n\n"
        "k8s-pod-network:\n"
        "  Address          Container      Since\n"
        "  10.52.0.9        (torn)         2023-11-14 22:13:20 +0000\n"
        "  10.52.0.10       0000000000000  2023-11-14 22:13:20 +0000\n"
        "  fd00::1          0000000000000  2023-11-14 22:13:20 +0000\n\n"
        "No runtime unit is up: recover sets aside what is leaked, and starts nothing.\n"
    )


@pytest.mark.parametrize(
    ("answer", "status", "left"), [("y\n", 0, 8), ("n\n", 75, 28), ("\n", 75, 28), ("\x04", 75, 28)]
)
def test_on_a_terminal_it_asks(tree: Tree, pods: HostLocal, answer: str, status: int, left: int) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cni_lease_reset", "--root", str(tree.root), "recover"]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        os.write(ours, answer.encode())
        assert process.stdout is not None
        said = process.stdout.read()
    os.close(ours)
    os.close(theirs)
    assert b"Go on? [y/N] " in said
    assert process.returncode == status
    assert len(tree.leases()) == left


def test_without_a_terminal_it_needs_yes(tree: Tree, pods: HostLocal, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert recover(tree) == 2
    assert len(tree.leases()) == 28


def in_doubt(tree: Tree) -> None:
    for path in tree.root.glob("proc/1*"):
        (path / "cmdline").unlink()
    (tree.root / f"run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{sandbox(27)}").rmdir()
    (tree.root / "run/netns/cni-1").mkdir(parents=True)


def other_engine(tree: Tree) -> None:
    (tree.root / "proc/1020/cmdline").write_text("/usr/bin/conmon\0-c\0x\0")


def another_network_held(tree: Tree) -> None:
    tree.lease("10.1.0.2", "", network="cbr0")
    held_lock(tree, "cbr0")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (in_doubt, "no pod seems to live, and yet /run/netns holds network namespaces"),
        (other_engine, "conmon is at work"),
        (held_lock, "network k8s-pod-network: busy: another process holds host-local's lock"),
        (another_network_held, "network cbr0: busy: another process holds host-local's lock"),
    ],
)
def test_where_it_would_not_be_safe_nothing_is_changed(
    tree: Tree, pods: HostLocal, capsys: pytest.CaptureFixture[str], spoil: object, why: str
) -> None:
    assert callable(spoil)
    spoil(tree)
    before = picture(tree)
    assert recover(tree, "--yes") == os.EX_TEMPFAIL
    assert f"cni-lease-reset: nothing was changed: {why}" in capsys.readouterr().err
    assert picture(tree) == before


def test_a_containerd_that_answers_is_waited_for_and_then_respected(
    tree: Tree, pods: HostLocal, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.root)
    said: list[str] = []
    with socket.socket(socket.AF_UNIX) as containerd:
        containerd.bind(K3S)
        containerd.listen()
        with pytest.raises(RefusedError, match="a containerd still answers at '/run/k3s/containerd/containerd.sock'"):
            recovery.work(tree.node, Systemd(down=False), journal, said.append, patience=0)
        assert len(tree.leases()) == 28
        assert said == ["Waiting until containerd has let go."]

        def let_go(line: str) -> None:
            said.append(line)
            containerd.close()

        recovery.work(tree.node, Systemd(down=False), journal, let_go)
    assert len(tree.leases()) == 8
    assert [entry.message_id for entry in journal.entries] == [MessageId.NOT_RECOVERED, MessageId.RECOVERED]


@pytest.mark.parametrize("when", ["look", "work"])
@pytest.mark.parametrize(
    ("systemd", "why"),
    [
        (Systemd(down=None), "systemd cannot be asked"),
        (Systemd(down=True), "the system goes down"),
    ],
)
def test_systemd_has_a_say(tree: Tree, pods: HostLocal, systemd: Systemd, why: str, when: str, journal: Kept) -> None:
    what: dict[str, Callable[[], object]] = {
        "look": lambda: recovery.look(tree.node, systemd),
        "work": lambda: recovery.work(tree.node, systemd, journal, lambda _line: None),
    }
    with pytest.raises(RefusedError, match=why):
        what[when]()
    assert len(tree.leases()) == 28


def test_a_unit_that_came_up_again_stops_it_under_the_lock(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    systemd = Systemd({"rke2-server.service": "activating"}, down=False)
    assert recovery.look(tree.node, systemd).units == ("rke2-server.service",)
    with pytest.raises(RefusedError, match=r"rke2-server\.service is up"):
        recovery.work(tree.node, systemd, journal, lambda _line: None)
    assert len(tree.leases()) == 28


def test_a_containerd_that_comes_up_again_stops_it_under_the_lock(
    tree: Tree, pods: HostLocal, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.root)
    with socket.socket(socket.AF_UNIX) as containerd:

        def come_up(line: str) -> None:
            assert line == "Living sandboxes and containers: 8."
            containerd.bind(K3S)
            containerd.listen()

        with pytest.raises(RefusedError, match="a containerd answers at"):
            recovery.work(tree.node, Systemd(down=False), journal, come_up)
    assert len(tree.leases()) == 28


def test_a_pod_that_starts_after_the_count_stops_it_under_the_lock(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    def start(line: str) -> None:
        assert line == "Living sandboxes and containers: 8."
        live(tree, 1)

    with pytest.raises(RefusedError, match="nothing was changed: a sandbox has started meanwhile"):
        recovery.work(tree.node, Systemd(down=False), journal, start)
    assert len(tree.leases()) == 28


def test_no_networks_no_work(tree: Tree, journal: Kept) -> None:
    said: list[str] = []
    recovery.work(tree.node, Systemd(down=False), journal, said.append)
    assert said == ["Living sandboxes and containers: 0.", "No lease is leaked."]
    assert journal.entries == []


def test_another_of_our_programs_is_respected(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    with only_one(tree.node, create=True), pytest.raises(BusyError):
        recovery.work(tree.node, Systemd(down=False), journal, lambda _line: None)
    assert len(tree.leases()) == 28


def test_a_move_that_fails_half_way_says_where_the_rest_is(
    tree: Tree, pods: HostLocal, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename
    moved: list[str] = []

    def failing(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if len(moved) == 5:
            raise OSError(5, "Input/output error", source)
        moved.append(source)
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(InputOutputError, match=r"not all was done, see reset 1-.*: Input/output error"):
        recovery.work(tree.node, Systemd(down=False), journal, lambda _line: None)
    assert len(tree.leases()) == 23
    assert len(tree.set_aside()) == 5


def test_a_network_that_cannot_be_read_is_an_error_and_a_link_is_passed_over(tree: Tree, pods: HostLocal) -> None:
    (tree.data / "cbr0").symlink_to(tree.network)
    assert recovery.look(tree.node, Systemd(down=False)).cleared == 20
    (tree.network / "10.52.0.2").unlink()
    os.mkfifo(tree.network / "10.52.0.2")  # no regular file: no lease
    assert recovery.look(tree.node, Systemd(down=False)).cleared == 19


def test_the_unit_calls_the_worker(tree: Tree, pods: HostLocal, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tree.root)
    assert cli.main(["--root", root, "recover", "--worker"]) == os.EX_TEMPFAIL, "no systemd runs here"
    printed = capsys.readouterr()
    assert printed.out.endswith("exit 75\n")
    assert "systemd cannot be asked" in printed.err


def test_on_this_machine_it_goes_through_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    found = recovery.Findings(("k3s.service",), (("cbr0", ()),), 0)._replace(leaked=(("cbr0", ((lease(), 0.0),)),))
    monkeypatch.setattr(recovery, "look", lambda _node, _manager: found)
    monkeypatch.setattr(transient, "PROGRAM", "/nowhere/cni-lease-reset")
    assert cli.main(["recover", "--yes"]) == os.EX_IOERR


def lease() -> Lease:
    return Lease("10.0.0.2", sandbox(1), torn=False)


def test_what_would_happen_names_the_units() -> None:
    text = recovery.as_text(recovery.Findings(("k3s.service",), (("cbr0", ((lease(), 0.0),)),), 1))
    assert "recover stops k3s.service (pods go on running)" in text


def test_nobody_but_root_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InputOutputError, match="run it as root"):
        recovery.look(Node("/"), Systemd())


def test_the_worker_ends_with_its_status(
    tree: Tree, pods: HostLocal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "Systemd", lambda: Systemd(down=False))
    assert cli.main(["--root", str(tree.root), "recover", "--worker"]) == os.EX_OK
    assert capsys.readouterr().out.endswith("\nexit 0\n")


def test_a_fault_of_ours_is_one_line(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recovery, "look", lambda _node, _manager: 1 // 0)
    assert recover(tree) == 1
    assert capsys.readouterr().err.startswith("cni-lease-reset: unexpected, please report: ZeroDivisionError: ")


def test_a_network_that_cannot_be_opened_stops_it(tree: Tree, pods: HostLocal, monkeypatch: pytest.MonkeyPatch) -> None:
    subdirectory = durable.subdirectory

    def failing(parent: int, name: str, **how: bool) -> int:
        if name == "k8s-pod-network":
            raise OSError(5, "Input/output error", name)
        return subdirectory(parent, name, **how)

    monkeypatch.setattr(durable, "subdirectory", failing)
    with pytest.raises(InputOutputError, match="nothing was changed: network k8s-pod-network: .* Input/output error"):
        recovery.look(tree.node, Systemd(down=False))


def test_waiting_for_containerd_goes_on_until_it_is_gone(
    tree: Tree, pods: HostLocal, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [f"/{K3S}", f"/{K3S}", None]
    monkeypatch.setattr(living, "answering", lambda _node, _seen: answers.pop(0) if answers else None)
    recovery.work(tree.node, Systemd(down=False), journal, lambda _line: None)
    assert answers == []
    assert len(tree.leases()) == 8
