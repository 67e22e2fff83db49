"""``recover`` on trees, with the real host-local: what goes, what stays and why, and what it says."""

import errno
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from conftest import OTHER, HostLocal, Kept, Tree, failing, held_lock, live, sandbox, tool
from machine import NOBODY, SETUID, Machine, network_namespace

from cni_lease_reset import cli
from cni_lease_reset.commands import recover as recovery
from cni_lease_reset.commands.fate import Fate
from cni_lease_reset.core.errors import InputOutputError
from cni_lease_reset.core.findings import MessageId, Survey
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges import durable, leases, lock
from cni_lease_reset.edges.lock import only_one
from cni_lease_reset.edges.node import Node


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HOST_LOCAL", 0.05)


@pytest.fixture
def machine(tree: Tree) -> Machine:
    return Machine(tree.root)


def picture(tree: Tree, *, but: str = " ") -> dict[str, tuple[int, int, int]]:
    """Every file and directory: inode, time of change and size."""
    found = {str(path.relative_to(tree.root)): path.lstat() for path in tree.root.rglob("*")}
    return {name: (s.st_ino, s.st_ctime_ns, s.st_size) for name, s in found.items() if but not in name}


def recover(tree: Tree, *arguments: str) -> int:
    return cli.main(["--root", str(tree.root), "recover", *arguments])


def leaked(sights: tuple[recovery.Sight, ...]) -> int:
    return sum(len(sight.of(Fate.LEAKED)) for sight in sights)


def entries(printed: str) -> list[str]:
    """What went to the journal."""
    return re.findall(r"^cni-lease-reset: ((?:Not r|R)ecovered.*: .*)$", printed, re.MULTILINE)


def test_the_leaked_leases_go_and_the_living_stay_untouched(
    tree: Tree, pods: HostLocal, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: value for name, value in picture(tree).items() if "/10.52.0." in name}
    living = {f"10.52.0.{number}" for number in range(22, 30)}
    assert recover(tree, "--yes") == os.EX_OK
    assert tree.leases() == living
    assert tree.set_aside() == {f"10.52.0.{number}" for number in range(2, 22)}
    after = {name: value for name, value in picture(tree, but="set-aside").items() if "/10.52.0." in name}
    assert after == {name: value for name, value in before.items() if name.rpartition("/")[2] in living}
    assert pods.add("new") == "10.52.0.30"
    printed = capsys.readouterr()
    assert re.search(r"\nk8s-pod-network: 20 leases set aside as 1-\S+\n +8 kept, living by owner\n$", printed.out)
    [entry] = entries(printed.err)
    assert re.fullmatch(r"Recovered: 20 leases set aside as 1-\S+, 8 kept\.", entry)


def test_a_second_recover_finds_nothing(tree: Tree, pods: HostLocal, capsys: pytest.CaptureFixture[str]) -> None:
    assert recover(tree, "--yes") == os.EX_OK
    capsys.readouterr()
    before = picture(tree)
    assert recover(tree, "--yes") == os.EX_OK
    assert capsys.readouterr() == (
        "k8s-pod-network: 8 leases, 0 look leaked\n     8 kept, living by owner\n\nNothing to recover.\n",
        "",
    )
    assert picture(tree) == before


def test_torn_leases_go_and_what_is_no_lease_stays(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    for address, content in (("10.52.0.2", ""), ("10.52.0.3", "\0" * 70), ("10.52.0.4", "x" * 5000), ("note", "")):
        tree.lease(address, content)
    tree.lease("fd00:52::a", sandbox(1))
    assert recover(tree, "--yes") == os.EX_OK
    assert tree.set_aside() == {"10.52.0.2", "10.52.0.3", "fd00:52::a"}
    assert (tree.network / "note").exists()
    assert (tree.network / "10.52.0.4").exists()
    assert "     1 kept, that cannot be read or moved: 10.52.0.4\n" in capsys.readouterr().out


def test_each_lease_that_stays_is_told_with_the_reason(
    tree: Tree, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2, 11):
        tree.lease(f"10.52.0.{number}", f"{sandbox(number)}\r\neth0")
    tree.lease("fd00:52::2", f"{sandbox(3)}\r\neth0")  # of a pod that has lost this address
    os.utime(tree.network / "10.52.0.9")
    (tree.network / "10.52.0.10").write_text("x" * 5000)
    machine.process("/usr/bin/conmon", "-c", sandbox(2))
    pods = [machine.process("pause") for _ in range(4)]
    for pod, number in zip(pods, range(3, 7), strict=True):
        machine.addresses(pod, f"10.52.0.{number}")
    with network_namespace(f"cni-{os.getpid()}", "10.52.0.7") as mount:
        machine.mounts(mount)
        assert recover(tree, "--yes") == os.EX_OK
    kept = (
        "     2 kept, living by owner\n"
        f"     4 kept, living by address: 10.52.0.3 (process {pods[0]}), 10.52.0.4 (process\n"
        f"         {pods[1]}), 10.52.0.5 (process {pods[2]}), …\n"
        "     1 kept, living until reboot, by address in a namespace without a process:\n"
        "         10.52.0.7\n"
        "     1 kept, younger than five minutes, as far as can be told\n"
        "     1 kept, that cannot be read or moved: 10.52.0.10\n"
    )
    before, after = capsys.readouterr().out.split("\n\n")
    assert before.startswith(f"k8s-pod-network: 10 leases, 1 look leaked\n{kept}  Address ")
    assert after.endswith(f" set aside as {next((tree.state / 'set-aside').iterdir()).name}\n{kept}")
    assert tree.set_aside() == {"10.52.0.8"}


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
    assert picture(tree) == before, "no lock, no folder, no file"
    assert capsys.readouterr() == (
        "k8s-pod-network: 4 leases, 3 look leaked\n"
        "     1 kept, living by owner\n"
        "  Address          Container      Since\n"
        "  10.52.0.9        (torn)         2023-11-14 22:13:20 +0000\n"
        "  10.52.0.10       0000000000000  2023-11-14 22:13:20 +0000\n"
        "  fd00::1          0000000000000  2023-11-14 22:13:20 +0000\n\n"
        "Nothing was changed.\n",
        "",
    )


def test_leases_are_shown_in_the_order_of_their_addresses(tree: Tree) -> None:
    for address in ("fd00::10", "10.52.0.10", "10.52.0.9", "fd00::9"):
        os.utime(tree.lease(address), (7, 7))
    (sight,) = recovery.look(tree.node)
    assert [lease.address for lease in sight.fates] == ["10.52.0.9", "10.52.0.10", "fd00::9", "fd00::10"]


def test_a_rehearsal_waits_for_no_lock(tree: Tree, pods: HostLocal) -> None:
    with held_lock(tree), only_one(tree.node, create=True):
        assert recover(tree, "--dry-run") == os.EX_OK


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
    assert b"Set aside 20 leases? [y/N] " in said
    assert process.returncode == status
    assert len(tree.leases()) == left


def test_without_a_terminal_it_needs_yes(
    tree: Tree, pods: HostLocal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert recover(tree) == 2
    assert "without a terminal say --yes, or --dry-run" in capsys.readouterr().err
    assert len(tree.leases()) == 28


def test_a_busy_network_is_left_and_the_others_are_done(
    tree: Tree, pods: HostLocal, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.lease("10.1.0.2", "", network="cbr0")
    with held_lock(tree):
        assert recover(tree, "--yes") == os.EX_TEMPFAIL
    assert (len(tree.leases()), tree.leases("cbr0"), tree.set_aside()) == (28, set(), {"10.1.0.2"})
    printed = capsys.readouterr()
    why = "not all was done: network k8s-pod-network: busy: another process holds host-local's lock"
    assert printed.err.endswith(f"cni-lease-reset: {why}\n")
    assert entries(printed.err)[1:] == [f"Recovered in part: {why.removeprefix('not all was done: ')}"]
    assert "Recovered: 1 lease set aside as 1-" in entries(printed.err)[0]
    assert "k8s-pod-network: 0" not in printed.out


def test_a_network_that_is_busy_for_a_moment_is_waited_for(
    tree: Tree, pods: HostLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HOST_LOCAL", 10.0)
    held = tree.network / "lock"
    held.touch()
    holder = ["flock", str(held), "sh", "-c", "echo held; read -r _"]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ours = [sys.executable, "-m", "cni_lease_reset", "--root", str(tree.root), "recover", "--yes"]
        with subprocess.Popen(ours, stdout=subprocess.PIPE) as waiting:
            assert waiting.stdout is not None
            while "Address" not in waiting.stdout.readline().decode():  # it has looked, and goes for the lock now
                pass
            process.communicate()
            waiting.communicate()
    assert waiting.returncode == os.EX_OK
    assert len(tree.leases()) == 8


def hidden(tree: Tree) -> None:
    Machine(tree.root)
    (tree.root / "proc/1/net/fib_trie").unlink()


def in_a_container(tree: Tree) -> None:
    Machine(tree.root)
    (tree.root / "proc/1/comm").write_text("sh\n")


def unreadable(tree: Tree) -> None:
    (tree.root / "proc/1020/cmdline").unlink()
    (tree.root / "proc/1020/cmdline").symlink_to("cmdline")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(hidden, "the processes of this machine are hidden from us", id="hidden"),
        pytest.param(in_a_container, "PID 1 is 'sh' and not systemd, as in a container: run on the node itself", id="sh"),
        pytest.param(unreadable, "'.*/proc/1020/cmdline': Too many levels of symbolic links", id="unreadable"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["--yes", "--dry-run"])
def test_where_who_lives_is_in_doubt_nothing_is_changed(
    tree: Tree, pods: HostLocal, capsys: pytest.CaptureFixture[str], spoil: object, why: str, how: str
) -> None:
    assert callable(spoil)
    spoil(tree)
    before = picture(tree)
    assert recover(tree, how) == os.EX_TEMPFAIL
    assert re.fullmatch(f"cni-lease-reset: nothing was changed: {why}.*\n", capsys.readouterr().err)
    assert picture(tree) == before


def test_a_doubt_that_comes_up_under_the_lock_counts(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    tree.lease("10.1.0.2", "", network="cbr0")
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        hidden(tree)  # cbr0 is done

    failure = recovery.work(tree.node, journal, say, crowded=False)
    assert (failure and failure.status, len(tree.leases()), tree.leases("cbr0")) == (os.EX_TEMPFAIL, 28, set())
    assert [entry.message_id for entry in journal.entries] == [MessageId.RECOVERED, MessageId.NOT_RECOVERED]
    assert "not all was done: network k8s-pod-network: the processes of this machine are hidden" in str(failure)
    assert len(said) == 1


def test_who_lives_is_asked_anew_under_the_lock(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    """What was shown before is no more than that: a pod that came since is seen."""
    seen = recovery.look(tree.node)
    live(tree, 1)
    assert leaked(seen) == 20
    assert recovery.work(tree.node, journal, lambda _line: None, crowded=False) is None
    assert len(tree.leases()) == 9


def test_another_of_our_programs_is_respected(tree: Tree, pods: HostLocal, capsys: pytest.CaptureFixture[str]) -> None:
    with only_one(tree.node, create=True):
        assert recover(tree, "--yes") == os.EX_TEMPFAIL
    assert len(tree.leases()) == 28
    why = "network k8s-pod-network: another cni-lease-reset is at work, try again"
    assert capsys.readouterr().err.endswith(f"cni-lease-reset: nothing was changed: {why}\n")


@pytest.fixture
def crowded(tree: Tree, pods: HostLocal) -> Tree:
    """A network that is crowded, and one with room."""
    tree.config("max_kept_leases: 27\n")
    for number in range(2, 29):
        tree.lease(f"10.1.0.{number}", sandbox(100 + number), network="cbr0")
    tree.lease("10.1.0.99", "", network="cbr0")  # a torn one does not crowd it
    return tree


def test_only_crowded_networks_are_dealt_with_if_told_so(crowded: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    assert recover(crowded, "--dry-run", "--crowded") == os.EX_OK
    assert "cbr0" not in capsys.readouterr().out
    assert recover(crowded, "--yes", "--crowded") == os.EX_OK
    assert (len(crowded.leases()), len(crowded.leases("cbr0"))) == (8, 28)
    printed = capsys.readouterr()
    assert re.fullmatch(r"k8s-pod-network: 20 leases set aside as 1-\S+\n +8 kept, living by owner\n", printed.out)
    assert len(entries(printed.err)) == 1


def test_unattended_it_is_silent_where_nothing_goes(crowded: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(28):
        if number not in range(20, 28):
            live(crowded, number)
    before = picture(crowded)
    assert recover(crowded, "--yes", "--crowded") == os.EX_OK
    assert capsys.readouterr() == ("", "")
    after = picture(crowded)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {
        "var/lib/cni",
        "var/lib/cni/cni-lease-reset",  # for our own lock
    }


def test_unattended_three_refusals_are_one_warning_a_boot(crowded: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    hidden(crowded)
    assert [recover(crowded, "--yes", "--crowded") for _ in range(3)] == [os.EX_TEMPFAIL] * 3
    printed = capsys.readouterr()
    [entry] = printed.err.splitlines()
    assert entry.startswith("cni-lease-reset: Not recovered: network k8s-pod-network: the processes of this ")
    assert printed.out == ""
    assert len(crowded.leases()) == 28


def test_without_a_limit_no_network_is_crowded_and_it_says_so(
    crowded: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    crowded.config("max_kept_leases: null\n")
    before = picture(crowded)
    for arguments in (("--crowded", "--yes"), ("--crowded", "--dry-run"), ("--crowded",)):
        assert recover(crowded, *arguments) == os.EX_OK
        assert capsys.readouterr() == ("max_kept_leases is null: no network counts as crowded.\n", "")
    assert picture(crowded) == before


def test_old_resets_go_with_a_new_one(tree: Tree, pods: HostLocal) -> None:
    tree.config("keep_resets: 1\n")
    old = tree.state / f"set-aside/1-20261123T061201Z-{OTHER[:8]}/k8s-pod-network"
    old.mkdir(parents=True)
    (old / "10.52.0.99").touch()
    assert recover(tree, "--yes") == os.EX_OK
    assert [path.name.partition("-")[0] for path in (tree.state / "set-aside").iterdir()] == ["2"]


def test_no_networks_no_work(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    before = picture(tree)
    assert recover(tree, "--yes") == os.EX_OK
    assert capsys.readouterr() == ("Nothing to recover.\n", "")
    assert picture(tree) == before


def test_an_empty_network_is_no_work_either(tree: Tree, journal: Kept) -> None:
    tree.network.mkdir(parents=True)
    said: list[str] = []
    assert recovery.work(tree.node, journal, said.append, crowded=False) is None
    assert said == ["k8s-pod-network: 0 leases set aside"]
    assert journal.entries == []


def test_a_move_that_fails_half_way_says_where_the_rest_is(
    tree: Tree, pods: HostLocal, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing("rename", monkeypatch, lambda _arguments: len(tree.set_aside()) == 5, errno.ENOSPC)
    said: list[str] = []
    failure = recovery.work(tree.node, journal, said.append, crowded=False)
    assert isinstance(failure, InputOutputError)
    assert re.match("not all was done: network k8s-pod-network: '10.52.*': No space left on device", str(failure))
    assert (len(tree.leases()), len(tree.set_aside())) == (23, 5)
    assert re.fullmatch(r"k8s-pod-network: 5 leases set aside as 1-\S+", said[0])
    assert [entry.message_id for entry in journal.entries] == [MessageId.RECOVERED, MessageId.NOT_RECOVERED]
    assert dict(journal.entries[0].fields)["CNI_LEASES_CLEARED"] == "5"


def test_an_error_weighs_more_than_a_plugin_at_work(
    tree: Tree, pods: HostLocal, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.config("networks: ['*']\n")
    tree.lease("10.1.0.2", "", network="broken")
    tree.lease("10.2.0.2", "", network="zbusy")
    failing("rename", monkeypatch, lambda arguments: arguments[0] == "10.1.0.2", errno.EROFS)
    with held_lock(tree, "zbusy"), held_lock(tree):
        failure = recovery.work(tree.node, journal, lambda _line: None, crowded=False)
    assert failure is not None
    assert failure.status == os.EX_IOERR
    busy = "busy: another process holds host-local's lock"
    assert str(failure) == (
        "nothing was changed: network broken: '10.1.0.2': Read-only file system; "
        f"network k8s-pod-network: {busy}; network zbusy: {busy}"
    )


@pytest.fixture
def immutable(tree: Tree, pods: HostLocal) -> Iterator[Path]:
    """A lease that cannot be moved, as the real file system says."""
    lease = tree.network / "10.52.0.7"
    done = subprocess.run(["chattr", "+i", lease], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this file system knows no chattr +i")
    yield lease
    subprocess.run(["chattr", "-i", lease], check=True)


def test_a_lease_that_cannot_be_moved_is_named_and_the_others_go(
    tree: Tree, immutable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recover(tree, "--yes") == os.EX_OK
    assert len(tree.leases()) == 9
    printed = capsys.readouterr()
    assert printed.out.endswith("     8 kept, living by owner\n     1 kept, that cannot be read or moved: 10.52.0.7\n")
    assert "Recovered: 19 leases set aside" in printed.err


def test_what_is_no_network_is_passed_over(tree: Tree, pods: HostLocal) -> None:
    (tree.data / "cbr0").symlink_to(tree.network)
    (tree.network / "10.52.0.2").unlink()
    os.mkfifo(tree.network / "10.52.0.2")  # no regular file: no lease
    assert leaked(recovery.look(tree.node)) == 19


def broken_network(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = durable.opened

    def broken(parent: int, name: str, **how: bool) -> AbstractContextManager[int]:
        if name == "broken":
            raise OSError(5, "Input/output error", name)
        return opened(parent, name, **how)

    monkeypatch.setattr(durable, "opened", broken)


@pytest.mark.parametrize("how", ["--yes", "--dry-run"])
def test_a_network_that_cannot_be_opened_is_told_and_the_others_are_done(
    tree: Tree, pods: HostLocal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    tree.config("networks: ['*']\n")
    tree.lease("10.1.0.2", network="broken")
    broken_network(monkeypatch)
    assert recover(tree, how) == os.EX_IOERR
    printed = capsys.readouterr()
    assert "broken: 'broken': Input/output error\n" in printed.out
    assert "network broken: 'broken': Input/output error" in printed.err
    assert len(tree.leases()) == (8 if how == "--yes" else 28)


def test_where_nothing_is_leaked_a_network_that_cannot_be_opened_is_told_all_the_same(
    tree: Tree, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.config("networks: ['*']\n")
    tree.lease("10.1.0.2", network="broken")
    broken_network(monkeypatch)
    assert recover(tree, "--yes") == os.EX_IOERR
    assert "Nothing to recover" not in capsys.readouterr().out


@pytest.mark.parametrize("what", ["a link for the lock", "a directory for the lock", "a link for the network"])
@pytest.mark.parametrize("how", ["--yes", "--dry-run"])
def test_what_will_not_mend_by_itself_is_skipped_and_told(
    tree: Tree, pods: HostLocal, capsys: pytest.CaptureFixture[str], what: str, how: str
) -> None:
    tree.config("networks: ['*']\n")
    if what == "a link for the network":
        (tree.data / "other").symlink_to(tree.root)
    else:
        lock = tree.lease("10.1.0.2", "", network="other").with_name("lock")
        if what == "a link for the lock":
            lock.symlink_to(tree.root / "victim")
        else:
            lock.mkdir()
    assert recover(tree, how) == os.EX_OK
    printed = capsys.readouterr()
    if what == "a link for the network":
        assert "Network other is skipped: " in printed.out
    assert len(tree.leases()) == (8 if how == "--yes" else 28)
    if how == "--yes":
        assert "cni-lease-reset: Network other is skipped: " in printed.err
        assert "other" in {path.name for path in tree.data.iterdir()}
    assert not (tree.root / "victim").exists()


OF_ONE_LEASE = pytest.mark.parametrize("code", [errno.EUCLEAN, errno.EPERM, errno.EIO, errno.EACCES])


@OF_ONE_LEASE
@pytest.mark.parametrize("call", ["open", "rename"])
def test_one_that_cannot_be_touched_is_named_and_the_others_go(
    tree: Tree,
    pods: HostLocal,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    call: str,
    code: int,
) -> None:
    failing(call, monkeypatch, lambda arguments: arguments[0] == "10.52.0.7", code)
    assert recover(tree, "--yes") == os.EX_OK
    assert len(tree.leases()) == 9
    printed = capsys.readouterr()
    assert printed.out.endswith("     1 kept, that cannot be read or moved: 10.52.0.7\n")
    assert "Recovered: 19 leases set aside" in printed.err


@OF_ONE_LEASE
@pytest.mark.parametrize("call", ["open", "rename"])
@pytest.mark.parametrize("how", ["--yes", "--dry-run"])
def test_where_none_of_several_can_be_touched_it_is_the_networks_failure(
    tree: Tree,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
    call: str,
    code: int,
) -> None:
    for number in range(2, 62):
        tree.lease(f"10.52.0.{number}")
    tree.lease("10.53.0.2", network="cbr0")
    failing(call, monkeypatch, lambda arguments: str(arguments[0]).startswith("10.52."), code)
    status = recover(tree, how)
    printed = capsys.readouterr()
    if (call, how) == ("rename", "--dry-run"):  # which does not try
        assert status == os.EX_OK
        return
    assert status == os.EX_IOERR
    said = {"open": "60 leases unreadable, ", "rename": "all 60 leases stay: "}[call] + os.strerror(code)
    assert f"network k8s-pod-network: {said}" in printed.err
    assert len(tree.leases()) == 60
    assert len(tree.leases("cbr0")) == (0 if how == "--yes" else 1)


def test_what_nobody_can_read_but_lives_by_its_address_is_dealt_with(
    tree: Tree, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3")
    machine.addresses(machine.process("pause", user=NOBODY), "10.52.0.3")
    failing("open", monkeypatch, lambda arguments: str(arguments[0]).startswith("10.52."), errno.EIO)
    assert recover(tree, "--yes") == os.EX_OK


def test_leases_that_are_none_of_host_locals_are_nobodys(tree: Tree, machine: Machine) -> None:
    for number in (2, 3):
        tree.lease(f"10.52.0.{number}", "x" * 5000)
    [sight] = recovery.look(tree.node)
    assert str(sight.wrong) == "2 leases that are none of host-local's"


def test_old_resets_that_cannot_be_removed_hide_nothing_of_what_was_done(
    tree: Tree, pods: HostLocal, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tree.state / "set-aside/1-20261123T061201Z-44444444/net"
    old.mkdir(parents=True)
    failing("rmdir", monkeypatch, lambda arguments: arguments[0] == "net", errno.EIO)
    assert recovery.work(tree.node, journal, lambda _line: None, crowded=False) is None
    assert [entry.message_id for entry in journal.entries] == [MessageId.RECOVERED, MessageId.IGNORED]
    assert journal.entries[1].message.startswith("Old resets cannot be removed: 'net': Input/output error")


def test_a_data_directory_that_goes_away_meanwhile_is_told(
    tree: Tree, pods: HostLocal, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = leases.survey

    def and_gone(node: Node, config: Config) -> Survey:
        found = survey(node, config)
        tree.data.rename(tree.root / "away")
        return found

    monkeypatch.setattr(leases, "survey", and_gone)
    failure = recovery.work(tree.node, journal, lambda _line: None, crowded=False)
    assert failure is not None
    assert failure.status == os.EX_IOERR
    assert "nothing was changed: network k8s-pod-network: '" in str(failure)
    assert str(failure).endswith("networks': No such file or directory")


def test_a_network_that_goes_away_meanwhile_is_told(
    tree: Tree, pods: HostLocal, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = leases.survey

    def and_gone(node: Node, config: Config) -> Survey:
        found = survey(node, config)
        tree.network.rename(tree.root / "away")
        return found

    monkeypatch.setattr(leases, "survey", and_gone)
    failure = recovery.work(tree.node, journal, lambda _line: None, crowded=False)
    assert failure is not None
    assert failure.status == os.EX_IOERR
    assert str(failure) == "nothing was changed: network k8s-pod-network: 'k8s-pod-network': No such file or directory"


def test_nobody_but_root_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InputOutputError, match="run it as root"):
        recovery.look(Node("/"))


def test_a_fault_of_ours_is_one_line(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recovery, "look", lambda _node, crowded: crowded // 0)
    assert recover(tree) == 1
    assert capsys.readouterr().err.startswith("cni-lease-reset: unexpected, please report: ZeroDivisionError: ")


# What "The gap" of its issue names, each as the processes that were there.

SHIM = "/var/lib/rancher/rke2/bin/containerd-shim-runc-v2"
POD, DEAD = sandbox(1), sandbox(2)


@pytest.fixture
def two(tree: Tree, machine: Machine) -> Machine:
    """A pod's lease and a leaked one, an hour old both."""
    tree.lease("10.52.0.2", f"{POD}\r\neth0")
    tree.lease("10.52.0.3", f"{DEAD}\r\neth0")
    return machine


def kuasar(machine: Machine) -> None:
    machine.file(f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{sandbox(9)}/sandbox", POD)


def virtual_machine(machine: Machine) -> None:
    machine.process("/usr/bin/cloud-hypervisor", "--api-socket", f"/run/vmm/{POD}/api.sock")


def address_alone(machine: Machine) -> None:
    machine.addresses(machine.process("sleep", "inf"), "10.52.0.2")


def being_started(machine: Machine) -> None:
    machine.process("/opt/cni/bin/bridge", environment=[f"CNI_CONTAINERID={POD}"])


def conmon(machine: Machine) -> None:
    machine.process("/usr/bin/conmon", "-c", POD)


def crio_without_infra_container(machine: Machine) -> None:
    machine.process("/usr/bin/conmon", "-c", sandbox(9))
    machine.file(f"run/containers/storage/overlay-containers/{POD}/userdata/config.json")


@pytest.mark.parametrize(
    "pod", [kuasar, virtual_machine, address_alone, being_started, conmon, crio_without_infra_container]
)
def test_a_pod_without_a_shim_keeps_its_lease(tree: Tree, two: Machine, pod: object) -> None:
    assert callable(pod)
    pod(two)
    assert recover(tree, "--yes") == os.EX_OK
    assert tree.leases() == {"10.52.0.2"}


def podman_in_a_pod(machine: Machine) -> None:
    machine.process("/usr/bin/conmon", "-c", "f" * 64, nspid="4711\t7")


def bogus_address(machine: Machine) -> None:
    machine.process(SHIM, "-namespace", "k8s.io", "-id", DEAD, "-address", "/run/" + "x" * 200, user=NOBODY)


def bogus_file_in_the_way(machine: Machine) -> None:
    machine.file("run/mine")
    machine.process(SHIM, "-namespace", "k8s.io", "-id", DEAD, "-address", "/run/mine/containerd.sock", user=NOBODY)


def setuid(machine: Machine) -> None:
    """``exec -a containerd-shim su -c <id> root``: /proc says that it is root's."""
    machine.process("containerd-shim", "-c", DEAD, "root", user=SETUID, environment=[f"CNI_CONTAINERID={DEAD}"])


def inside_a_container(machine: Machine) -> None:
    machine.process(SHIM, "-namespace", "k8s.io", "-id", DEAD, nspid="4711\t7")


def nobody_with_a_bogus_environment(machine: Machine) -> None:
    machine.process("/tmp/bridge", user=NOBODY, environment=[f"CNI_CONTAINERID={DEAD}"])


@pytest.mark.parametrize(
    "impostor",
    [podman_in_a_pod, bogus_address, bogus_file_in_the_way, setuid, inside_a_container, nobody_with_a_bogus_environment],
)  # fmt: skip
def test_an_impostor_neither_stops_it_nor_keeps_a_lease(tree: Tree, two: Machine, impostor: object) -> None:
    assert callable(impostor)
    conmon(two)
    impostor(two)
    assert recover(tree, "--yes") == os.EX_OK
    assert tree.leases() == {"10.52.0.2"}


def test_beside_dockers_own_containerd_the_rehearsal_and_the_run_agree(
    tree: Tree, two: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    two.process(SHIM, "-namespace", "k8s.io", "-id", POD, "-address", "/run/k3s/containerd/containerd.sock")
    two.process(SHIM, "-namespace", "moby", "-id", "d" * 64, "-address", "/run/containerd/containerd.sock")
    (tree.root / "run/containerd").mkdir()
    monkeypatch.chdir(tree.root)
    with ExitStack() as stack:
        docker = stack.enter_context(socket.socket(socket.AF_UNIX))
        docker.bind("run/containerd/containerd.sock")
        docker.listen()
        assert recover(tree, "--dry-run") == os.EX_OK
        assert "2 leases, 1 look leaked\n     1 kept, living by owner\n" in capsys.readouterr().out
        assert recover(tree, "--yes") == os.EX_OK
    assert "\nk8s-pod-network: 1 lease set aside" in capsys.readouterr().out
    assert tree.leases() == {"10.52.0.2"}


def traced(tree: Tree, *arguments: str) -> str:
    """Run it to its end, and return the system calls of it and its children that name a path, a program or a socket."""
    log = tree.root.with_name("strace")
    strace = [tool("strace"), "-f", "-qq", "-y", "-s", "4000", "-e", "trace=%file,%network,execve,execveat"]
    program = [sys.executable, "-B", "-m", "cni_lease_reset", "--root", str(tree.root), "recover", *arguments]
    plain = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    subprocess.run([*strace, "-o", str(log), *program], check=True, capture_output=True, env=plain)
    return log.read_text()


def test_it_opens_nothing_that_an_untrusted_process_named_and_not_its_environment(tree: Tree, two: Machine) -> None:
    conmon(two)
    two.process(SHIM, "-namespace", "k8s.io", "-id", POD, "-address", "/run/trusted/containerd.sock")
    strangers = [
        two.process(SHIM, "-namespace", "k8s.io", "-address", "/run/mine/1/c.sock", user=NOBODY),
        two.process(SHIM, "-address=/run/mine/2/c.sock", user=SETUID),
        two.process(SHIM, "-namespace", "moby", "--address", "unix:///run/mine/3/c.sock", nspid="4711\t7"),
    ]
    two.process(SHIM, "-namespace", "k8s.io", "-address", "/home/mine/4/c.sock")  # root's, and no place of root's
    calls = traced(tree, "--yes")
    assert "/run/trusted/io.containerd.runtime.v2.task" in calls, "the trace sees what it is for"
    assert "/mine" not in calls
    assert tree.leases() == {"10.52.0.2"}
    for stranger in strangers:
        assert f"/proc/{stranger}/status" in calls
        assert f"/proc/{stranger}/cmdline" not in calls
        assert f"/proc/{stranger}/environ" not in calls


def test_it_stops_nothing(tree: Tree, two: Machine) -> None:
    """No program is run and no bus is asked: RKE2, kubelet, containerd and all pods cannot even notice."""
    conmon(two)
    calls = traced(tree, "--yes")
    assert calls.count("execve(") == 1, "itself"
    assert "connect(" not in calls
    assert "sendto(" not in calls
    assert tree.leases() == {"10.52.0.2"}
