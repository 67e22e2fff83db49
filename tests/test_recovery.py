"""``recover`` and ``restore`` on trees, with the real host-local; the real systemd is the virtual machines'."""

import fcntl
import os
import pty
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from conftest import OTHER, HostLocal, Kept, Systemd, Tree

from cni_lease_reset import cli, service
from cni_lease_reset.commands import recover as recovery
from cni_lease_reset.commands import restore, transient
from cni_lease_reset.core.errors import BusyError, InputOutputError, RefusedError, UsageError
from cni_lease_reset.core.events import MessageId
from cni_lease_reset.core.model import PROGRAM, BootId, Lease
from cni_lease_reset.edges import durable, leases, shelf
from cni_lease_reset.edges import sandboxes as living
from cni_lease_reset.edges.journald import Journal
from cni_lease_reset.edges.lock import only_one
from cni_lease_reset.edges.node import Node
from cni_lease_reset.edges.systemd import Answer, TransientUnit

K3S = "run/k3s/containerd/containerd.sock"


def sandbox(number: int) -> str:
    return f"{number:064x}"


def live(tree: Tree, number: int, namespace: str = "k8s.io") -> None:
    path = tree.root / f"proc/{1000 + number}/cmdline"
    path.parent.mkdir(parents=True)
    shim = ("/usr/bin/containerd-shim-runc-v2", "-namespace", namespace, "-id", sandbox(number), "-address", f"/{K3S}")
    path.write_text("\0".join((*shim, "")))


def picture(tree: Tree) -> dict[str, tuple[int, int, int]]:
    """Every file's inode, time of change and size, but for those of the state directory, which the lock needs."""
    files = (path for path in tree.root.rglob("*") if not path.is_dir())
    found = {str(path.relative_to(tree.root)): path.lstat() for path in files}
    return {name: (s.st_ino, s.st_ctime_ns, s.st_size) for name, s in found.items() if "cni-lease-reset" not in name}


def recover(tree: Tree, *arguments: str) -> int:
    return cli.main(["--root", str(tree.root), "recover", *arguments])


@pytest.fixture
def pods(tree: Tree) -> HostLocal:
    """A pool in which 20 leases leaked and 8 pods live, one of them only by its task directory."""
    plugin = HostLocal(tree)
    for number in range(28):
        plugin.add(sandbox(number))
    for number in range(20, 27):
        live(tree, number)
    (tree.root / "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io" / sandbox(27)).mkdir(parents=True)
    return plugin


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


def held_lock(tree: Tree, network: str = "k8s-pod-network") -> None:
    lock = os.open(tree.data / network / "lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)


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


class Operator(Systemd):
    """A systemd that does with the transient unit what a test tells it; the real one is the virtual machines'."""

    def __init__(self, tree: Tree, journal: Journal, *, killed: bool = False, at_work: bool | None = False) -> None:
        super().__init__({"rke2-server.service": "active"}, down=False)
        self.tree, self.journal, self.killed, self.is_at_work = tree, journal, killed, at_work
        self.unit: TransientUnit | None = None

    def stop(self, units: Sequence[str]) -> None:
        for unit in units:
            self.states[unit] = "inactive"

    def start(self, unit: TransientUnit) -> None:
        self.unit = unit
        units = unit.command[3:]
        with Path(unit.output).open("a", encoding="utf-8") as output:

            def say(line: str) -> None:
                print(line, file=output)

            transient.work_in_unit(self.tree.node, self, self.journal, units, say)
            if not self.killed:
                say(transient.last_words(units, 0))

    def at_work(self, unit: str) -> bool | None:
        assert unit == transient.UNIT
        return self.is_at_work


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transient, "PROGRAM", sys.executable)


@pytest.mark.usefixtures("_installed")
def test_the_work_is_done_in_a_unit_that_starts_the_runtime_again(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    operator = Operator(tree, journal)
    said: list[str] = []
    assert transient.start(tree.node, operator, ("rke2-server.service",), said.append) == 0
    assert len(tree.leases()) == 8
    assert operator.unit is not None
    assert operator.unit.before == ("rke2-server.service", "rke2-agent.service", "k3s.service", "k3s-agent.service")
    assert operator.unit.command == (sys.executable, "recover", "--worker", "rke2-server.service")
    assert operator.unit.afterwards == ("/usr/bin/systemctl", "--no-block", "start", "--", "rke2-server.service")
    assert said[0] == "Stopping rke2-server.service; the pods go on running."
    assert said[-1] == "The start of rke2-server.service is queued; watch it with: systemctl status rke2-server.service"
    assert operator.states["rke2-server.service"] == "inactive"


@pytest.mark.usefixtures("_installed")
def test_where_no_unit_is_up_none_is_started(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    operator = Operator(tree, journal)
    operator.states.clear()
    said: list[str] = []
    assert transient.start(tree.node, operator, (), said.append) == 0
    assert operator.unit is not None
    assert operator.unit.afterwards == ("/usr/bin/true",)
    assert said[-1].startswith("Set aside 20 leases")


@pytest.mark.usefixtures("_installed")
def test_work_that_is_cut_short_is_told(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    with pytest.raises(InputOutputError, match="recover was cut short"):
        transient.start(tree.node, Operator(tree, journal, killed=True), ("rke2-server.service",), lambda _line: None)


@pytest.mark.usefixtures("_installed")
def test_one_recover_at_a_time(tree: Tree, journal: Kept) -> None:
    with pytest.raises(RefusedError, match="another recover is at work"):
        transient.start(tree.node, Operator(tree, journal, at_work=True), (), lambda _line: None)
    with pytest.raises(RefusedError, match="systemd cannot be asked"):
        transient.start(tree.node, Operator(tree, journal, at_work=None), (), lambda _line: None)


def test_without_the_package_there_is_no_unit(tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transient, "PROGRAM", str(tree.root / "none"))
    with pytest.raises(InputOutputError, match="install the package"):
        transient.start(tree.node, Operator(tree, journal), (), lambda _line: None)


def test_who_watches_waits_for_the_end(tree: Tree, journal: Kept, tmp_path: Path) -> None:
    path = tmp_path / "progress"
    path.write_text("one\n")
    said: list[str] = []

    class Slow(Operator):
        def at_work(self, _unit: str) -> bool:
            if said:
                with path.open("a") as file:
                    file.write("two\nexit 75\n")
            return True

    assert transient.follow(str(path), Slow(tree, journal), said.append) == 75
    assert said == ["one", "two"]


@pytest.mark.usefixtures("_installed")
def test_who_stops_watching_is_told_that_it_goes_on(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    said: list[str] = []

    def interrupted(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transient.start(tree.node, Operator(tree, journal), ("rke2-server.service",), interrupted)
    assert said[-1].startswith("recover goes on without you in cni-lease-reset-recover.service")


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


def test_the_program_is_where_the_unit_looks_for_it() -> None:
    unit = (Path(__file__).parent.parent / "packaging/systemd/cni-lease-reset.service").read_text()
    assert f"ExecStart={PROGRAM} boot\n" in unit


# --- restore


@pytest.fixture
def reset(tree: Tree) -> str:
    """What a boot after a power cut set aside."""
    tree.mark("running", OTHER)
    for number in range(2, 7):
        tree.lease(f"10.52.0.{number}")
    tree.lease("fd00::2", network="cbr0")
    service.boot(tree.node, Systemd(), Kept())
    assert not tree.leases()
    return next((tree.state / "set-aside").iterdir()).name


def test_a_reset_is_put_back_whole(tree: Tree, reset: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.stat().st_ino for path in (tree.state / "set-aside").rglob("*") if path.is_file()}
    assert cli.main(["--root", str(tree.root), "restore", reset]) == 0
    assert capsys.readouterr().out == "cbr0: 1 put back, 0 left\nk8s-pod-network: 5 put back, 0 left\n"
    assert {name: (tree.network / name).stat().st_ino for name in tree.leases()}.items() <= before.items()
    assert tree.leases() == {f"10.52.0.{number}" for number in range(2, 7)}
    assert tree.leases("cbr0") == {"fd00::2"}
    assert list((tree.state / "set-aside").iterdir()) == []


def test_a_lease_that_exists_now_is_never_overwritten(tree: Tree, reset: str, journal: Kept) -> None:
    mine = tree.lease("10.52.0.3", "mine")
    said = restore.restore(tree.node, Systemd(), journal, reset)
    assert mine.read_text() == "mine"
    assert tree.set_aside() == {"10.52.0.3"}
    assert "k8s-pod-network: 4 put back, 1 left" in said
    assert f"stays in reset {reset}" in said
    assert [entry.message_id for entry in journal.entries] == [MessageId.RESTORED]


def test_a_network_that_is_gone_is_made_again(tree: Tree, reset: str, journal: Kept) -> None:
    (tree.data / "cbr0/lock").unlink()
    (tree.data / "cbr0").rmdir()
    restore.restore(tree.node, Systemd(), journal, reset)
    assert tree.leases("cbr0") == {"fd00::2"}


@pytest.mark.parametrize("why", ["unit", "pod", "lock"])
def test_a_restore_is_refused_while_pods_may_live(tree: Tree, reset: str, journal: Kept, why: str) -> None:
    systemd = Systemd({"k3s.service": "active"} if why == "unit" else {})
    if why == "pod":
        tree.shim()
    if why == "lock":
        held_lock(tree)
    with pytest.raises((RefusedError, BusyError), match="nothing was put back") as error:
        restore.restore(tree.node, systemd, journal, reset)
    assert error.value.status == os.EX_TEMPFAIL
    assert len(tree.set_aside()) == 6


def test_a_refused_restore_leaves_no_trace(tree: Tree, reset: str, journal: Kept) -> None:
    (tree.data / "cbr0/lock").unlink()
    (tree.data / "cbr0").rmdir()
    with pytest.raises(RefusedError):
        restore.restore(tree.node, Systemd({"k3s.service": "active"}), journal, reset)
    assert not (tree.data / "cbr0").exists()


def test_a_runtime_that_comes_up_meanwhile_is_seen_under_the_lock(tree: Tree, reset: str, journal: Kept) -> None:
    class ComesUp(Systemd):
        def unit_states(self, units: Sequence[str]) -> Answer[dict[str, str]]:
            answer = super().unit_states(units)
            self.states["k3s.service"] = "active"
            return answer

    with pytest.raises(RefusedError, match="nothing was put back"):
        restore.restore(tree.node, ComesUp(), journal, reset)
    assert len(tree.set_aside()) == 6


@pytest.mark.parametrize("name", ["1-20261123T061201Z-11111112", "nonsense", "../../networks", "x\n"])
def test_a_wrong_name_is_told_with_the_nearest(tree: Tree, reset: str, journal: Kept, name: str) -> None:
    near = f", did you mean '{reset}'?" if name.startswith("1-") else ""
    with pytest.raises(UsageError) as error:
        restore.restore(tree.node, Systemd(), journal, name)
    assert str(error.value).endswith(near)
    assert "\n" not in str(error.value)


def test_the_number_of_a_reset_tells_which_is_meant(tree: Tree, reset: str, journal: Kept) -> None:
    with pytest.raises(UsageError, match=f"there is no reset '1', did you mean '{reset}'?"):
        restore.restore(tree.node, Systemd(), journal, "1")
    with pytest.raises(UsageError, match="there is no reset '7'; cni-lease-reset status lists them"):
        restore.restore(tree.node, Systemd(), journal, "7")


@pytest.mark.parametrize("place", [".", "k8s-pod-network"])
def test_what_somebody_left_in_a_reset_stays_there(tree: Tree, reset: str, journal: Kept, place: str) -> None:
    note = tree.state / "set-aside" / reset / place / "note"
    note.write_text("keep this")
    assert "k8s-pod-network: 5 put back, 0 left" in restore.restore(tree.node, Systemd(), journal, reset)
    assert len(tree.leases()) == 5
    assert note.read_text() == "keep this"
    assert (tree.state / "set-aside" / reset / "reason").exists(), "the reset is there, and so is why"
    assert not (tree.network / "note").exists()
    tree.next_kernel(BootId("44444444-4444-4444-8444-444444444444"))
    service.boot(tree.node, Systemd(), journal)
    assert [entry.message_id for entry in journal.entries] == [MessageId.RESTORED, MessageId.CLEARED], (
        "and no complaint"
    )
    assert note.read_text() == "keep this"


def test_without_any_reset_there_is_none_to_restore(tree: Tree, journal: Kept) -> None:
    with pytest.raises(UsageError, match="there is no reset 'x'"):
        restore.restore(tree.node, Systemd(), journal, "x")


# --- what seldom happens


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


def test_a_lease_that_a_del_removes_meanwhile_has_no_time(
    tree: Tree, pods: HostLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = leases.parse

    def removing(name: str, content: bytes) -> Lease:
        if name == "10.52.0.2":
            pods.delete(sandbox(0))
        return parse(name, content)

    with durable.directory("/var/lib/cni/networks", root=tree.node.root) as data:
        monkeypatch.setattr(leases, "parse", removing)
        found = leases.inventory(data, "k8s-pod-network")
    assert (found[0][0].address, found[0][1]) == ("10.52.0.2", 0.0)
    assert len(found) == 28


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


def test_a_reset_says_why_it_was_made(tree: Tree, reset: str) -> None:
    with durable.directory(f"/var/lib/cni/cni-lease-reset/set-aside/{reset}", root=tree.node.root) as folder:
        assert shelf.reason(folder) == "unclean shutdown"
        os.unlink("reason", dir_fd=folder)
        assert shelf.reason(folder) == ""


def test_a_reason_that_cannot_be_kept_stops_no_reset(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def full(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path.endswith("/reason"):
            raise OSError(28, "No space left on device", path)
        return opened(path, flags, mode, dir_fd=dir_fd)

    tree.mark("running", OTHER)
    tree.lease("10.52.0.2")
    monkeypatch.setattr(os, "open", full)
    assert service.boot(tree.node, Systemd(), journal).cleared == 1
    assert [entry.message_id for entry in journal.entries] == [MessageId.IGNORED, MessageId.CLEARED]
