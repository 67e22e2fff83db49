"""edges/namespaces.py: addresses in the network namespaces of processes, and in those that only a mount keeps."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from machine import Machine, ip, living, network_namespace, pause_in

from cni_lease_reset.edges import namespaces
from cni_lease_reset.edges.living import look
from cni_lease_reset.edges.sight import Sight

NAME = f"cni-{os.getpid()}"  # tests run side by side


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def addresses(machine: Machine, *asked: str, caged: bool = False) -> dict[str, int | None]:
    """Those of some addresses that are set, where nothing is in doubt."""
    found = look(machine.node, (), asked, Sight(caged=caged))
    assert found.doubts == ()
    return dict(found.addresses)


def test_an_address_of_a_process_is_told_with_the_process(machine: Machine) -> None:
    one, two = machine.process("pause"), machine.process("pause")
    machine.addresses(one, "10.52.0.7", "fd00:52::a")
    machine.addresses(two, "10.52.0.8")
    found = addresses(machine, "10.52.0.7", "10.52.0.8", "10.52.0.9", "fd00:52::a", "fd00:52::b", caged=True)
    assert found == {"10.52.0.7": one, "10.52.0.8": two, "fd00:52::a": one}


@pytest.mark.parametrize("asked", ["10.99.0.0", "127.0.0.0", "10.52.0.70", "10.52.0", "0.52.0.7"])
def test_what_is_no_address_of_the_machine_is_not_set(machine: Machine, asked: str) -> None:
    """A network, the network of a loopback, and parts of an address that is set."""
    machine.addresses(machine.process("pause"), "10.52.0.7")
    assert addresses(machine, asked) == {}


def test_two_spellings_of_an_address_are_the_same_one(machine: Machine) -> None:
    machine.addresses(process := machine.process("pause"), "fd00:52::a")
    asked = ("fd00:52::a", "FD00:52::A", "fd00:52:0::a")
    assert addresses(machine, *asked) == dict.fromkeys(asked, process)


def test_a_namespace_is_told_with_the_first_of_its_processes(machine: Machine) -> None:
    pause = machine.process("pause")
    machine.addresses(pause, "10.52.0.7")
    found = namespaces.Addresses(Sight(caged=True), ["10.52.0.7"])
    for process in (pause, machine.process("app", namespace_of=pause)):
        found.look(f"{machine.proc}/{process}/net", process)
    assert found.found == {"10.52.0.7": pause}


def test_a_namespace_is_read_once_however_many_processes_are_in_it(machine: Machine) -> None:
    pause, app = machine.process("pause"), machine.process("app")
    (machine.proc / f"{app}/net/fib_trie").unlink()
    os.link(machine.proc / f"{pause}/net/fib_trie", machine.proc / f"{app}/net/fib_trie")
    (machine.proc / f"{app}/net/if_inet6").unlink()
    (machine.proc / f"{app}/net/if_inet6").symlink_to("if_inet6")  # reading it would be a doubt
    found = namespaces.Addresses(sight := Sight(caged=True), [])
    for process in (pause, app):
        found.look(f"{machine.proc}/{process}/net", process)
    assert sight.doubts == {}


def test_anybodys_namespace_counts(machine: Machine) -> None:
    """Evidence 2 has no trust: a pod may run as any user, in a PID namespace of its own."""
    machine.addresses(process := machine.process("app", user=(1000,) * 4, nspid="7\t1"), "10.52.0.7")
    assert addresses(machine, "10.52.0.7") == {"10.52.0.7": process}


def test_a_kernel_without_ipv6_has_no_list_of_its_addresses(machine: Machine) -> None:
    machine.addresses(process := machine.process("pause"), "10.52.0.7")
    (machine.proc / f"{process}/net/if_inet6").unlink()
    assert addresses(machine, "10.52.0.7", "fd00:52::a") == {"10.52.0.7": process}


def test_a_namespace_whose_process_ended_is_asked_for_from_the_next_one(machine: Machine) -> None:
    """In between its fib_trie was there, and its if_inet6 no more: that is no kernel without IPv6."""
    ending, staying = machine.process("ending"), machine.process("staying")
    machine.addresses(staying, "fd00:52::a")
    net = machine.proc / f"{ending}/net"
    (net / "if_inet6").unlink()
    (net / "fib_trie").unlink()
    os.link(machine.proc / f"{staying}/net/fib_trie", net / "fib_trie")
    os.mkfifo(net / "if_inet6")

    def end() -> None:
        with (net / "if_inet6").open("w"):  # somebody reads it now
            (net / "fib_trie").unlink()

    found = namespaces.Addresses(Sight(caged=True), ["fd00:52::a"])
    ender = threading.Thread(target=end)
    ender.start()
    found.look(str(net), ending)
    ender.join()
    found.look(f"{machine.proc}/{staying}/net", staying)
    assert found.found == {"fd00:52::a": staying}


def test_a_process_that_moves_to_another_namespace_has_not_shown_the_first_one(machine: Machine) -> None:
    moving, staying = machine.process("moving"), machine.process("staying")
    machine.addresses(staying, "10.52.0.7", "fd00:52::a")
    net = machine.proc / f"{moving}/net"
    (net / "fib_trie").rename(net / "elsewhere")
    os.link(machine.proc / f"{staying}/net/fib_trie", net / "fib_trie")
    (net / "if_inet6").unlink()
    os.mkfifo(net / "if_inet6")

    def move() -> None:
        with (net / "if_inet6").open("w"):
            (net / "elsewhere").rename(net / "fib_trie")

    found = namespaces.Addresses(Sight(caged=True), ["10.52.0.7", "fd00:52::a"])
    mover = threading.Thread(target=move)
    mover.start()
    found.look(str(net), moving)
    mover.join()
    found.look(f"{machine.proc}/{staying}/net", staying)
    assert found.found == {"10.52.0.7": moving, "fd00:52::a": staying}


@pytest.mark.parametrize("file", ["fib_trie", "if_inet6"])
def test_a_namespace_that_cannot_be_read_is_a_doubt(machine: Machine, file: str) -> None:
    path = machine.proc / f"{machine.process('pause')}/net/{file}"
    path.unlink()
    path.symlink_to(file)
    assert look(machine.node, (), ("10.52.0.7",), Sight(caged=True)).doubts == (
        f"'{path}': Too many levels of symbolic links",
    )


def test_a_real_process_in_a_real_namespace(machine: Machine) -> None:
    with network_namespace(NAME, "10.52.0.7", "fd00:52::a") as mount, pause_in(mount) as pause:
        machine.real(pause)
        found = addresses(machine, "10.52.0.7", "10.52.0.8", "fd00:52::a", "fd00:52::b")
        assert found == {"10.52.0.7": pause, "fd00:52::a": pause}


def test_a_zombie_and_a_kernel_thread_have_nothing_to_say(machine: Machine) -> None:
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    machine.real(zombie.pid)
    threads = [path.parent for path in Path("/proc").glob("[0-9]*/comm") if path.parent.name == "2"]
    for thread in threads:
        machine.real(thread.name)
    assert addresses(machine, "10.52.0.7") == {}
    zombie.wait()


def test_five_thousand_addresses_are_read_at_once(machine: Machine) -> None:
    asked = [f"10.{a}.{b}.1" for a in range(50, 70) for b in range(250)]
    batch = "".join(f"address add {address}/32 dev lo\n" for address in asked)
    with network_namespace(NAME) as mount:
        subprocess.run(["ip", "-n", NAME, "-batch", "-"], input=batch, text=True, check=True)
        with pause_in(mount) as pause:
            machine.real(pause)
            started = time.process_time()
            assert addresses(machine, *asked) == dict.fromkeys(asked, pause)
            assert time.process_time() - started < 0.5


def test_a_namespace_without_a_process_is_entered_by_its_mount(machine: Machine) -> None:
    with network_namespace(NAME, "10.52.0.7", "fd00:52::a") as mount:
        machine.mounts(mount)
        assert addresses(machine, "10.52.0.7", "10.52.0.8", "fd00:52::a") == {"10.52.0.7": None, "fd00:52::a": None}
        assert addresses(machine, "10.52.0.7", caged=True) == {}


def test_who_looked_is_in_his_own_namespace_again(machine: Machine) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    with network_namespace(NAME, "10.52.0.7") as mount:
        machine.mounts(mount)
        addresses(machine, "10.52.0.7")
    assert os.readlink("/proc/thread-self/ns/net") == before


def test_a_namespace_with_a_process_and_a_mount_is_told_with_the_process(machine: Machine) -> None:
    with network_namespace(NAME, "10.52.0.7") as mount, pause_in(mount) as pause:
        machine.mounts(mount)
        machine.real(pause)
        assert addresses(machine, "10.52.0.7") == {"10.52.0.7": pause}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A file to mount a namespace on, with all that mountinfo escapes in its path."""
    place = tmp_path / "a blank\ta tab\na line\\040a backslash" / "ns"
    place.parent.mkdir()
    place.touch()
    yield place
    while subprocess.run(["umount", place], check=False, capture_output=True).returncode == 0:
        pass


def mount(source: str | Path, place: Path) -> None:
    subprocess.run(["mount", "--bind", "--make-private", source, place], check=True)


def only_mounted_at(place: Path, namespace: str) -> None:
    """Mount a namespace there, and take away the name that ``ip`` gave it."""
    mount(namespace, place)
    ip("netns", "delete", os.path.basename(namespace))


def test_a_mount_may_have_a_blank_in_its_path(machine: Machine, elsewhere: Path) -> None:
    with network_namespace(NAME, "10.52.0.7") as namespace:
        only_mounted_at(elsewhere, namespace)
        machine.mounts(elsewhere)
        assert addresses(machine, "10.52.0.7") == {"10.52.0.7": None}


@pytest.mark.parametrize("cover", ["file", "namespace"])
def test_a_namespace_that_a_later_mount_hides_is_a_doubt(machine: Machine, elsewhere: Path, cover: str) -> None:
    with ExitStack() as stack:
        namespace = stack.enter_context(network_namespace(NAME, "10.52.0.7"))
        only_mounted_at(elsewhere, namespace)
        if cover == "file":
            source = str(machine.file("cover"))
        else:
            source = stack.enter_context(network_namespace(f"{NAME}-b", "10.52.0.8"))
        mount(source, elsewhere)
        machine.mounts(elsewhere)
        found = look(machine.node, (), ("10.52.0.7", "10.52.0.8"), Sight(caged=False))
        assert found.addresses == ({} if cover == "file" else {"10.52.0.8": None})
        [doubt] = found.doubts
        assert re.search(
            r"^the network namespace mounted at '.*/a blank\\ta tab\\na line\\040a backslash/ns' cannot be entered: "
            r"(Invalid argument|it is another one) \(another mount may cover it\)$",
            doubt,
        )


def test_a_namespace_that_one_mount_hides_and_another_shows_is_no_doubt(machine: Machine, elsewhere: Path) -> None:
    with network_namespace(NAME, "10.52.0.7") as namespace:
        mount(namespace, elsewhere)
        mount(machine.file("cover"), elsewhere)
        machine.mounts(elsewhere, namespace)
        assert addresses(machine, "10.52.0.7") == {"10.52.0.7": None}


@pytest.mark.parametrize("left", ["nothing", "a file"])
def test_a_namespace_that_is_unmounted_while_we_look_is_nothing(machine: Machine, left: str) -> None:
    sight, proc = Sight(caged=False), str(machine.proc)
    with network_namespace(NAME, "10.52.0.7") as namespace:
        machine.mounts(namespace)
        seen = namespaces.mounted(sight, proc)
    assert len(seen) == 1
    machine.mounts()
    if left == "a file":
        Path(namespace).touch()
    found = namespaces.Addresses(sight, ["10.52.0.7"])
    found.enter(seen, proc)
    Path(namespace).unlink(missing_ok=True)
    assert (found.found, sight.doubts) == ({}, {})


def test_below_another_root_a_mounted_namespace_cannot_be_entered(machine: Machine) -> None:
    machine.file("proc/1/mountinfo", "43 42 0:4 net:[4026532245] /run/netns/cni-1 rw shared:2 - nsfs nsfs rw\n")
    assert look(machine.node, (), ("10.52.0.7",), Sight(caged=False)).doubts == (
        "the network namespace mounted at '/run/netns/cni-1' cannot be entered: No such file or directory "
        "(another mount may cover it)",
    )


@pytest.mark.parametrize(
    "line",
    [
        "22 27 0:21 / /proc rw,relatime - proc proc rw",
        "43 42 0:4 mnt:[4026532245] /run/mntns rw - nsfs nsfs rw",
        "43 42 0:4 /net:[4026532245] /srv/file rw - ext4 /dev/sda rw",
        "net:[4026532245] /run/netns/x",
        "",
        "\xff\xfe",
    ],
)
def test_other_lines_of_mountinfo_are_no_namespaces(machine: Machine, line: str) -> None:
    machine.file("proc/1/mountinfo", f"{line}\n")
    assert namespaces.mounted(Sight(caged=False), str(machine.proc)) == []


def test_an_impossible_escape_in_mountinfo_is_no_crash(machine: Machine) -> None:
    machine.file("proc/1/mountinfo", "43 42 0:4 net:[5] /a\\777b\\9 rw - nsfs nsfs rw\n")
    [mount] = namespaces.mounted(Sight(caged=False), str(machine.proc))
    assert (mount.root, mount.point) == ("net:[5]", "/a\u01ffb\\9")


LOOK = """
import sys
from cni_lease_reset.edges.living import look
from cni_lease_reset.edges.node import Node
from cni_lease_reset.edges.sight import Sight
print(*look(Node(sys.argv[1]), (), ("10.52.0.7",), Sight(caged=False)).doubts, sep="\\n")
"""


WITHOUT_OS_SETNS = "import os\nvars(os).pop('setns', None)\n"  # Python before 3.12


def doubts_without(machine: Machine, *capabilities: str, script: str = LOOK) -> list[str]:
    """What root doubts who lacks capabilities."""
    command = [
        "setpriv",
        f"--bounding-set={','.join(f'-{each}' for each in capabilities)}",
        sys.executable,
        "-c",
        script,
        str(machine.root),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize("script", [LOOK, WITHOUT_OS_SETNS + LOOK])
def test_who_may_not_enter_a_namespace_is_told_what_to_do(machine: Machine, script: str) -> None:
    with network_namespace(NAME) as mount:
        machine.mounts(mount)
        [doubt] = doubts_without(machine, "sys_admin", script=script)
    assert re.fullmatch(
        r"the network namespace mounted at '/run/netns/.*' cannot be entered: Operation not permitted "
        r"\(run as root, with CAP_SYS_ADMIN and CAP_SYS_PTRACE\)",
        doubt,
    )


def test_who_may_not_read_an_environment_is_told_what_to_do(machine: Machine) -> None:
    with living("cni-plugin") as process:
        machine.real(process)
        doubts = doubts_without(machine, "all")
        path = f"{machine.proc}/{process}/environ"
        assert look(machine.node, (), (), Sight(caged=False)).doubts == ()
    assert doubts == [f"'{path}': Permission denied (run as root, with CAP_SYS_PTRACE)"]


def test_pythons_own_setns_is_used_where_it_has_one(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 3.12 on; here the same call under its name."""
    kinds = set()

    def setns(namespace: int, kind: int) -> None:
        kinds.add(kind)
        namespaces._setns_of_libc(namespace, kind)

    monkeypatch.setattr(os, "setns", setns, raising=False)
    with network_namespace(NAME, "10.52.0.7") as mount:
        machine.mounts(mount)
        assert addresses(machine, "10.52.0.7") == {"10.52.0.7": None}
    assert kinds == {0x40000000}


def test_a_python_that_cannot_call_setns_is_a_doubt(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where MemoryDenyWriteExecute= keeps libffi from making a closure."""
    monkeypatch.delattr(os, "setns", raising=False)
    monkeypatch.setitem(sys.modules, "ctypes", None)
    with network_namespace(NAME) as mount:
        machine.mounts(mount)
        [doubt] = look(machine.node, (), ("10.52.0.7",), Sight(caged=False)).doubts
    assert "cannot be entered: Python cannot call setns(2): " in doubt
