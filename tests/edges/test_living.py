"""edges/living.py: who lives, asked whole: hidden processes, mounted namespaces of pods, the order, the child."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from machine import Machine, become_nobody, living

from cni_lease_reset.core.findings import Lease, Living
from cni_lease_reset.edges import child, lock
from cni_lease_reset.edges.living import CONTAINERD, answers, look, own_room, whose
from cni_lease_reset.edges.node import Node
from cni_lease_reset.edges.sight import Sight

ID: Final = "0123456789abcdef" * 4
UUID: Final = "6b1d2c3e-0000-4000-8000-0123456789ab"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def leases(*known: tuple[str, str | None]) -> tuple[Lease, ...]:
    return tuple(Lease(address, owner, torn=owner is None) for address, owner in known)


def test_where_nobody_lives_there_is_neither_evidence_nor_doubt(machine: Machine) -> None:
    assert look(machine.node, (ID,), ("10.52.0.7",), Sight(caged=False)) == Living()


def test_a_pod_that_is_asked_for_in_the_child(machine: Machine) -> None:
    process = machine.process("containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", ID)
    machine.addresses(process, "10.52.0.7")
    found = whose(machine.node, leases(("10.52.0.7", ID), ("10.52.0.8", "f" * 64), ("10.52.0.9", None)))
    assert found == look(machine.node, (ID,), ("10.52.0.7",), Sight(caged=False))
    assert found.owners == {ID}
    assert found.addresses == {"10.52.0.7": process}
    assert found.pods == (f"pod sandbox {ID[:13]} lives (process {process})",)
    assert found.doubts == ()


def test_an_owner_of_any_bytes_survives_the_way_back(machine: Machine) -> None:
    owner = os.fsdecode(b"\xff\xfe" * 8)
    machine.process(os.fsencode(owner))
    assert whose(machine.node, leases(("10.52.0.7", owner)), caged=True).owners == {owner}


@pytest.mark.parametrize("file", ["status", "cmdline", "environ", "net/fib_trie"])
def test_a_process_that_does_not_let_itself_be_read_is_a_doubt(
    machine: Machine, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in D state does; here a FIFO that nobody writes to."""
    path = machine.proc / f"{machine.process('hung')}/{file}"
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(lock, "WHO_LIVES", 0.2)
    assert whose(machine.node, leases(("10.52.0.7", ID))) == Living(
        doubts=("who lives cannot be told: no answer within 0.2 s",)
    )


def test_of_no_lease_nobody_asks_and_boot_asks_for_any_pod(machine: Machine) -> None:
    process = machine.process("containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", ID)
    (machine.root / "run/systemd/system").rmdir()
    assert whose(machine.node, ()) == Living()
    assert whose(machine.node, leases(("10.52.0.7", None))).doubts == (own_room(machine.node),)
    assert whose(machine.node, (), caged=True).pods == (f"pod sandbox {ID[:13]} lives (process {process})",)


def test_a_child_that_fails_is_a_doubt(machine: Machine) -> None:
    found = whose(machine.node, leases(("no:address", ID)))
    fault = "OSError: illegal IP address string passed to inet_pton"
    why = f"who lives cannot be told: {fault}"
    assert found == Living(doubts=(why,))


def test_the_child_has_five_seconds() -> None:
    assert lock.WHO_LIVES == 5


def test_a_pod_that_starts_while_we_look_is_seen(machine: Machine) -> None:
    """An ADD has ended since the ids were read: the plugin is gone and the shim is there."""
    later = machine.process("sleeper")
    trie = machine.proc / f"{later}/net/fib_trie"
    trie.unlink()
    os.mkfifo(trie)
    starter = os.fork()
    if starter == 0:
        with trie.open("w"):  # the addresses are being read: ids were
            (machine.proc / f"{later}/cmdline").write_text(f"containerd-shim\0-id\0{ID}\0")
            os.rename(trie, f"{trie}.gone")
        os._exit(0)
    found = look(machine.node, (ID,), (), Sight(caged=True))
    os.waitpid(starter, 0)
    assert found.owners == {ID}
    assert found.pods == (f"pod sandbox {ID[:13]} lives (process {later})",)


def test_a_pod_that_ends_while_we_look_was_seen(machine: Machine) -> None:
    ending = machine.process("containerd-shim", "-id", ID)
    trie = machine.proc / f"{ending}/net/fib_trie"
    trie.unlink()
    os.mkfifo(trie)
    ender = os.fork()
    if ender == 0:
        with trie.open("w"):
            (machine.proc / f"{ending}/cmdline").write_text("")
            os.rename(trie, f"{trie}.gone")
        os._exit(0)
    found = look(machine.node, (ID,), (), Sight(caged=True))
    os.waitpid(ender, 0)
    assert found.owners == {ID}
    assert found.pods == (f"pod sandbox {ID[:13]} lives (process {ending})",)


@pytest.mark.parametrize(
    ("point", "is_pods"),
    [
        pytest.param("/run/netns/cni-0c3a3a6e-8d5f-1b2c-0123-456789abcdef", True, id="containerd"),
        pytest.param("/var/run/netns/cni-1", True, id="elsewhere"),
        pytest.param(f"/run/netns/{UUID}", True, id="CRI-O"),
        pytest.param("/run/k3s/containerd/netns/x", True, id="below RKE2's state"),
        pytest.param("/run/containerd/x/y", True, id="below containerd's state"),
        pytest.param("/run/mine/netns/x", True, id="below the state that a shim names"),
        pytest.param("/run/netns/cni-a\\012b", True, id="with a newline"),
        pytest.param(f"/run/netns/netns-{UUID}", False, id="podman"),
        pytest.param("/run/docker/netns/0123456789ab", False, id="Docker"),
        pytest.param("/run/netns/vpn", False, id="an administrator's"),
        pytest.param(f"/run/netns/{UUID}-vpn", False, id="a name that begins so"),
        pytest.param("/run/netns/not-cni-1", False, id="a name that ends so"),
        pytest.param("/run/containerd-x/ns", False, id="beside containerd's state"),
    ],
)
def test_a_mounted_namespace_of_a_pod_is_told_by_its_place(machine: Machine, point: str, is_pods: bool) -> None:
    machine.file("proc/1/mountinfo", f"43 42 0:4 net:[4026532245] {point} rw shared:2 - nsfs nsfs rw\n")
    machine.process("containerd-shim-runc-v2", "-namespace", "moby", "-address", "/run/mine/containerd.sock")
    found = look(machine.node, (), (), Sight(caged=True))
    shown = point.replace("\\012", "\\n")
    assert found.pods == ((f"the network namespace of a pod is mounted at '{shown}'",) if is_pods else ())
    assert found.doubts == ()


@pytest.mark.parametrize("file", ["comm", "net/fib_trie"])
def test_where_pid_1_cannot_be_seen_nobody_may_be_visible(machine: Machine, file: str) -> None:
    (machine.proc / f"1/{file}").unlink()
    for caged in (False, True):
        assert look(machine.node, (ID,), (), Sight(caged=caged)).doubts == (
            f"the processes of this machine are hidden from us ('{machine.proc}/1/{file}': No such file or directory): "
            "run where the machine's own /proc is mounted",
        )


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        pytest.param("rw,gid=1234,hidepid=2", "hidepid=2: run with its group 1234 (in a unit: SupplementaryGroups=1234)", id="number"),
        pytest.param("rw,gid=7,hidepid=invisible", "hidepid=invisible: run with its group 7 (in a unit: SupplementaryGroups=7)", id="word"),
        pytest.param("rw,hidepid=ptraceable", "hidepid=ptraceable: run with CAP_SYS_PTRACE", id="no group"),
    ],
)  # fmt: skip
def test_where_proc_hides_processes_it_is_said_what_to_do(machine: Machine, options: str, advice: str) -> None:
    (machine.proc / "1/comm").unlink()
    lines = f"22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw\n23 22 0:21 / /proc rw,relatime - proc proc {options}\n"
    machine.file("proc/self/mountinfo", f"{lines}24 22 0:9 / /proc/sys rw - proc proc rw\n")
    [doubt] = look(machine.node, (ID,), (), Sight(caged=True)).doubts
    assert doubt.endswith(f": No such file or directory): /proc is mounted with {advice}, or mount it without")


def test_who_is_seen_among_hidden_processes_lives_all_the_same(machine: Machine) -> None:
    (machine.proc / "1/comm").unlink()
    machine.process("shim", ID)
    found = look(machine.node, (ID,), (), Sight(caged=True))
    assert found.owners == {ID}
    assert found.doubts != ()


LOOK: Final = """
import sys
from cni_lease_reset.edges.living import look
from cni_lease_reset.edges.node import Node
from cni_lease_reset.edges.sight import Sight
found = look(Node(sys.argv[1]), sys.argv[2:], ("10.52.0.7",), Sight(caged=False))
print(*found.owners, *found.addresses, *found.doubts, sep="\\n")
"""


def test_what_a_user_has_no_right_to_is_no_doubt_of_his(machine: Machine) -> None:
    (machine.root / "run/containerd/io.containerd.runtime.v2.task").mkdir(parents=True)
    (machine.root / "run/containerd").chmod(0o700)
    machine.process("shim", ID)
    reachable(machine)

    def nobody() -> bytes:
        become_nobody()
        return repr(look(machine.node, (ID,), ("10.52.0.7",), Sight(caged=True, lenient=True))).encode()

    assert child.ask(nobody).decode() == repr(Living(owners=frozenset({ID}), addresses={}))


WHOLE: Final = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
ip netns add cni-1
ip -n cni-1 link set lo up
ip -n cni-1 address add 10.52.0.7/32 dev lo
exec "$@"
"""


def a_machine_of_its_own(*command: str) -> list[str]:
    """Run a command as PID 1 of namespaces, with a pod's namespace that no process is in."""
    unshare = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run([*unshare, "sh", "-c", WHOLE, "sh", *command], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_whole_machine(machine: Machine) -> None:
    """PID 1's own id, by its command line, and the address of a mounted namespace; nothing in doubt."""
    assert a_machine_of_its_own(sys.executable, "-c", LOOK, "/", ID) == [ID, "10.52.0.7"]


def test_a_machine_that_hides_its_processes_from_a_root_without_capabilities() -> None:
    """hidepid= hides PID 1 from a root who lacks CAP_SYS_PTRACE; the group that may see is named."""
    script = (
        'mount -t proc -o hidepid=2,gid=1234 proc /proc; setpriv --bounding-set=-sys_ptrace,-sys_admin "$@"; exit 0'
    )
    [*_, doubt] = a_machine_of_its_own("sh", "-c", script, "sh", sys.executable, "-c", LOOK, "/", ID)
    assert doubt.startswith("the processes of this machine are hidden from us ('/proc/1/comm': ")
    assert doubt.endswith("run with its group 1234 (in a unit: SupplementaryGroups=1234), or mount it without")


def test_a_real_process_on_this_very_machine() -> None:
    owner = os.urandom(32).hex()
    assert look(Node(), (owner,), (), Sight(caged=True)).owners == frozenset()
    with living("containerd-shim-runc-v2", "-namespace", "moby", "-id", owner):
        assert look(Node(), (owner,), (), Sight(caged=True)).owners == {owner}


def test_an_impostor_on_this_very_machine() -> None:
    owner = os.urandom(32).hex()
    with living("containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", owner, user=65534):
        assert look(Node(), (owner,), (), Sight(caged=True)).owners == frozenset()


def test_a_shim_inside_a_container_on_this_very_machine() -> None:
    owner = os.urandom(32).hex()
    inside = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "echo; read -r _", owner]
    with subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outside:
        assert outside.stdout is not None
        outside.stdout.read(1)
        outside_says_so = look(Node(), (owner,), (), Sight(caged=True)).owners
        outside.communicate()
    assert outside_says_so == {owner}  # unshare itself, which is no impostor, has the same arguments


def test_recover_and_status_speak_for_the_whole_machine_alone(machine: Machine) -> None:
    assert own_room(machine.node) is None
    (machine.root / "run/systemd/system").rmdir()
    assert own_room(machine.node) == ("the machine's own /run is not there, as in a container: run on the node itself")
    (machine.proc / "1/comm").write_text("pause\033\n")
    assert own_room(machine.node) == "PID 1 is 'pause\\x1b' and not systemd, as in a container: run on the node itself"
    (machine.proc / "1/comm").unlink()
    assert own_room(machine.node) == (
        f"the processes of this machine are hidden from us ('{machine.proc}/1/comm': No such file or directory): "
        "run where the machine's own /proc is mounted"
    )


@pytest.fixture
def listening(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A root short enough for a socket's path."""
    monkeypatch.chdir(machine.root)
    (machine.root / "run/k3s/containerd").mkdir(parents=True)
    return Node(".")


def test_a_containerd_that_listens_answers(listening: Node) -> None:
    assert not answers(listening)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as containerd:
        containerd.bind(f".{CONTAINERD}")
        assert not answers(listening)
        containerd.listen(0)
        assert answers(listening)
    assert not answers(listening)


def test_a_containerd_that_has_no_time_answers_too(listening: Node) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as containerd:
        containerd.bind(f".{CONTAINERD}")
        containerd.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
            first.connect(f".{CONTAINERD}")
            assert answers(listening)
            assert answers(listening)


def test_a_containerd_that_does_not_let_us_answers_too(listening: Node, machine: Machine) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as containerd:
        containerd.bind(f".{CONTAINERD}")
        containerd.listen()
        os.chmod(f".{CONTAINERD}", 0o600)
        reachable(machine)

        def nobody() -> bytes:
            become_nobody()
            return b"%d" % answers(listening)

        assert child.ask(nobody) == b"1"


def reachable(machine: Machine) -> None:
    """Let nobody in particular come to the machine's files."""
    for path in [machine.root, *machine.root.parents]:
        path.chmod(path.stat().st_mode | 0o011)


@pytest.mark.parametrize("other", ["a file", "a datagram socket", "a directory"])
def test_what_is_no_containerd_does_not_answer(listening: Node, other: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        if other == "a file":
            Path(f".{CONTAINERD}").touch()
        elif other == "a directory":
            Path(f".{CONTAINERD}").mkdir()
        else:
            datagram.bind(f".{CONTAINERD}")
        assert not answers(listening)


def test_a_path_that_is_too_long_for_a_socket_does_not_answer(listening: Node) -> None:
    assert not answers(listening, "/run/" + "x" * 200)
