"""edges/traces.py: ids of containers, on command lines, in environments and in the engines' directories."""

import os
import socket
import sys
from pathlib import Path

import pytest
from machine import NOBODY, ROOT, SETUID, Machine

from cni_lease_reset.edges import child, traces
from cni_lease_reset.edges.living import look
from cni_lease_reset.edges.sight import Sight

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
CONTAINER = "c0" * 32
SOCKET = "/run/k3s/containerd/containerd.sock"
SHIM = "/var/lib/rancher/rke2/data/v1.31.1/bin/containerd-shim-runc-v2"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def owners(machine: Machine, *asked: str, caged: bool = True) -> set[str]:
    """Those of some ids that live, where nothing is in doubt."""
    found = look(machine.node, asked or (ID, OTHER), (), Sight(caged=caged))
    assert found.doubts == ()
    return set(found.owners)


def pods(machine: Machine) -> tuple[str, ...]:
    return look(machine.node, (), (), Sight(caged=True)).pods


@pytest.mark.parametrize(
    "command",
    [
        pytest.param((SHIM, "-namespace", "k8s.io", "-id", ID, "-address", SOCKET), id="containerd 1.6 to 2.4, RKE2"),
        pytest.param((SHIM, "-namespace", "k8s.io", "-id", ID, "-address", SOCKET, "-debug"), id="with debug"),
        pytest.param((SHIM, "-debug", "--namespace", "k8s.io", "--address", SOCKET, "--id", ID), id="two hyphens"),
        pytest.param((SHIM, f"-id={ID}", "-namespace=k8s.io", f"-address={SOCKET}"), id="equals signs"),
        pytest.param((SHIM, f"--id={ID}", "--namespace=k8s.io"), id="two hyphens and equals signs"),
        pytest.param(
            (
                "/usr/local/bin/containerd-shim-kata-v2",
                *("-address", "/run/containerd/containerd.sock", "-publish-binary", "/usr/bin/containerd"),
                *("-namespace", "k8s.io", "-id", ID, "-debug"),
            ),
            id="kata",
        ),
        pytest.param(("/usr/bin/containerd-shim-runsc-v1", "-namespace", "k8s.io", "-id", ID), id="gVisor"),
        pytest.param(("/bin/containerd-shim-spin-v2", "-namespace", "k8s.io", "-id", ID), id="spin"),
        pytest.param(
            (
                *("containerd-shim", "-namespace", "k8s.io", "-workdir"),
                f"/var/lib/containerd/io.containerd.runtime.v1.linux/k8s.io/{ID}",
                *("-address", "/run/containerd/containerd.sock", "-containerd-binary", "/usr/bin/containerd"),
            ),
            id="containerd's v1 shim",
        ),
    ],
)
def test_a_shim_of_kubernetes_is_a_pod_and_names_it(machine: Machine, command: tuple[str, ...]) -> None:
    process = machine.process(*command)
    assert owners(machine) == {ID}
    sandbox = "?" if "v1.linux" in " ".join(command) else ID[:13]
    assert pods(machine) == (f"pod sandbox {sandbox} lives (process {process})",)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            ("containerd-shim-runc-v2", "-namespace", "moby", "-id", ID, "-address", "/run/containerd/containerd.sock"),
            id="cri-dockerd",
        ),
        pytest.param(
            (
                *("/usr/bin/conmon", "-b", f"/run/containers/storage/overlay-containers/{ID}/userdata", "-c", ID),
                *("--exit-dir", "/var/run/crio/exits", "-r", "/usr/bin/runc", "--runtime-arg", "--root=/run/runc"),
            ),
            id="CRI-O",
        ),
        pytest.param(("cloud-hypervisor", "--api-socket", f"/run/vmm/{ID}/api.sock"), id="a VMM's socket"),
        pytest.param(("qemu-system-x86_64", "-name", f"sandbox-{ID},debug-threads=off"), id="a VMM's name"),
        pytest.param(("dragonball", f"-chardev=socket,path=/run/{ID}.sock"), id="in the midst of an argument"),
        pytest.param((b"\xff\xfe", ID), id="not UTF-8"),
    ],
)
def test_an_id_on_the_command_line_of_any_engine_lives_and_is_no_pod_of_kubernetes(
    machine: Machine, command: tuple[str | bytes, ...]
) -> None:
    machine.process(*command)
    assert owners(machine) == {ID}
    assert pods(machine) == ()


@pytest.mark.parametrize("beside", ["{}0", "0{}", "x{}", "{}Z", "k8s{}io"])
def test_an_id_that_is_a_part_of_a_longer_word_is_not_that_one(machine: Machine, beside: str) -> None:
    machine.process("shim", beside.format(ID))
    assert owners(machine) == set()


def test_nerdctl_writes_its_namespace_before_the_id(machine: Machine) -> None:
    machine.process("/usr/bin/containerd-shim-runc-v2", "-namespace", "default", "-id", ID)
    assert owners(machine, f"default-{ID}", f"default-{OTHER}") == {f"default-{ID}"}


@pytest.mark.parametrize(
    ("owner", "known_by"),
    [
        pytest.param("pod_1.of_somebody", "x=pod_1.of_somebody,", id="an id of more than letters and digits"),
        pytest.param("a-long-name-abc", "/run/a-long-name-abc/sock", id="a name with hyphens and a short end"),
        pytest.param("6b1d2c3e-0000-4000-8000-0123456789ab", "-uuid=6b1d2c3e-0000-4000-8000-0123456789ab", id="a UUID"),
        pytest.param("twelve-chars", "(twelve-chars)", id="just long enough"),
        pytest.param("(" * 12, "(" * 12, id="nothing that a pattern would take"),
    ],
)
def test_an_owner_of_another_form_is_sought_as_it_is(machine: Machine, owner: str, known_by: str) -> None:
    machine.process("shim", known_by)
    machine.process("shim", f"0{OTHER}")
    assert owners(machine, owner, OTHER) == {owner}


@pytest.mark.parametrize("beside", ["{}0", "0{}"])
def test_an_owner_of_another_form_is_no_part_of_a_longer_one(machine: Machine, beside: str) -> None:
    machine.process("shim", beside.format("pod_1.of_somebody"))
    assert owners(machine, "pod_1.of_somebody") == set()


@pytest.mark.parametrize("owner", ["", "systemd", "elevenchars", "a-b", "-", "\udcff" * 3, "(.*" * 5])
def test_an_owner_that_is_no_id_is_not_found_by_it(machine: Machine, owner: str) -> None:
    machine.process("systemd", "elevenchars", "a-b", "-")
    assert owners(machine, owner) == set()


@pytest.mark.parametrize(
    "impostor",
    [
        pytest.param({"user": NOBODY}, id="another user"),
        pytest.param({"user": SETUID}, id="a setuid program keeps its caller's arguments"),
        pytest.param({"user": (0, 0, 0, 65534)}, id="another user's files"),
        pytest.param({"nspid": "4711\t7"}, id="inside a container"),
    ],
)
def test_an_impostor_is_not_believed(machine: Machine, impostor: dict[str, object]) -> None:
    """Neither what he says he is, nor what his environment says, nor the directory that he names."""
    machine.file(f"run/evil/io.containerd.runtime.v2.task/k8s.io/{ID}/sandbox", OTHER)
    machine.process(
        *("containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", ID, "-address", "/run/evil/containerd.sock"),
        environment=[f"CNI_CONTAINERID={ID}"],
        **impostor,  # type: ignore[arg-type]
    )
    assert owners(machine, caged=False) == set()
    assert pods(machine) == ()


def test_of_an_impostor_nothing_is_opened_but_his_status(machine: Machine) -> None:
    """What would hang or fail is never touched."""
    process = machine.process(SHIM, user=NOBODY)
    for name in ("cmdline", "environ"):
        (machine.proc / f"{process}/{name}").unlink()
        os.mkfifo(machine.proc / f"{process}/{name}")
    assert owners(machine, caged=False) == set()


@pytest.mark.parametrize(("user", "is_opened"), [(ROOT, True), (NOBODY, False)])
def test_nothing_is_opened_below_a_path_that_an_impostor_named(
    machine: Machine, user: tuple[int, ...], is_opened: bool
) -> None:
    machine.file("run/evil/x")
    machine.process(SHIM, "-address", "/run/evil/containerd.sock", user=user)

    def watched() -> bytes:
        paths = []
        sys.addaudithook(lambda event, about: paths.append(str(about[0])) if event in ("open", "os.listdir") else None)
        look(machine.node, (ID,), (), Sight(caged=False))
        return b"%d" % any("/run/evil" in path for path in paths)

    assert child.ask(watched) == b"%d" % is_opened


def test_a_kernel_that_tells_no_nested_pids_has_none(machine: Machine) -> None:
    machine.process(SHIM, "-id", ID, nspid=None)
    assert owners(machine) == {ID}


def test_a_cni_plugin_at_work_keeps_its_container(machine: Machine) -> None:
    machine.process("/opt/cni/bin/bridge", environment=["CNI_COMMAND=ADD", f"CNI_CONTAINERID={ID}", "CNI_IFNAME=eth0"])
    assert owners(machine, caged=False) == {ID}
    assert owners(machine, caged=True) == set()  # boot has no right to see it


def test_a_cni_plugin_tells_its_container_even_if_its_id_is_short(machine: Machine) -> None:
    environment = machine.proc / f"{machine.process('bridge')}/environ"
    environment.write_bytes(b"CNI_CONTAINERID=short-1\0MY_CNI_CONTAINERID=short-2\0")
    assert owners(machine, "short-1", "short-2", "short", caged=False) == {"short-1"}


@pytest.mark.parametrize("state", ["/run/k3s/containerd", "/run/containerd"])
@pytest.mark.parametrize(
    ("path", "content"),
    [
        pytest.param(f"io.containerd.runtime.v2.task/k8s.io/{ID}/config.json", "", id="a task"),
        pytest.param(f"io.containerd.sandbox.controller.v1.shim/k8s.io/{ID}/address", "", id="a sandbox"),
        pytest.param(f"io.containerd.runtime.v2.task/k8s.io/{CONTAINER}/sandbox", ID, id="Kuasar: a task's sandbox"),
        pytest.param(f"io.containerd.runtime.v2.task/k8s.io/{CONTAINER}/sandbox", f"{ID}\n", id="with a newline"),
    ],
)
def test_what_containerd_keeps_lives(machine: Machine, state: str, path: str, content: str) -> None:
    machine.file(f"{state}/{path}", content)
    assert owners(machine) == {ID}


def test_crio_without_infra_containers_is_known_by_its_directories(machine: Machine) -> None:
    machine.file(f"/run/containers/storage/overlay-containers/{ID}/userdata/config.json")
    assert owners(machine) == {ID}


def test_the_state_of_a_containerd_that_a_shim_names_is_looked_at(machine: Machine) -> None:
    machine.file(f"/run/mine/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json")
    assert owners(machine) == set()
    machine.process(SHIM, "-namespace", "moby", "-address", "unix:///run/mine/containerd.sock")
    assert owners(machine) == {ID}


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("/home/mine/containerd.sock", id="home"),
        pytest.param("/run/../home/mine/containerd.sock", id="home, by a detour"),
        pytest.param("//run/mine/containerd.sock", id="another root, says POSIX"),
        pytest.param("home/mine/containerd.sock", id="relative"),
        pytest.param("/run/" + "x" * 200, id="200 bytes"),
        pytest.param("/run/" + "x" * 5000, id="longer than any path"),
        pytest.param("/run/file/containerd.sock", id="a file in the way"),
        pytest.param("/run/datagram/containerd.sock", id="a socket of another type in the way"),
        pytest.param(b"/run/\xff\xfe/containerd.sock", id="not UTF-8"),
        pytest.param("", id="empty"),
        pytest.param("unix://", id="a scheme alone"),
    ],
)
def test_a_bogus_address_leads_nowhere(machine: Machine, address: str | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.file(f"/home/mine/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json")
    machine.file("/run/file")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        monkeypatch.chdir(machine.root / "run")  # a socket's path has 108 bytes at most
        datagram.bind("datagram")
        machine.process(SHIM, "-namespace", "moby", "-id", CONTAINER, "-address", address)
        assert owners(machine) == set()


@pytest.mark.parametrize("where", ["io.containerd.runtime.v2.task", "io.containerd.runtime.v2.task/k8s.io"])
def test_a_file_where_containerd_has_a_directory_is_nothing(machine: Machine, where: str) -> None:
    machine.file(f"/run/containerd/{where}", ID)
    assert owners(machine) == set()


def test_a_directory_where_kuasar_has_a_file_is_nothing(machine: Machine) -> None:
    machine.file(f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{CONTAINER}/sandbox/x")
    assert owners(machine) == set()


@pytest.mark.parametrize(
    ("command", "pod"),
    [
        pytest.param((SHIM, "-id", ID), ID[:13], id="no namespace"),
        pytest.param((SHIM, "-namespace", "", "-id", ID), ID[:13], id="an empty one"),
        pytest.param((SHIM, "-v"), "?", id="nothing at all"),
        pytest.param((SHIM, "-namespace"), "?", id="cut off"),
        pytest.param((SHIM, "-namespace", "moby", "-namespace", "k8s.io"), "?", id="the last one counts"),
        pytest.param((SHIM, "-namespace", "k8s.io", "-id", "\033[2J"), "\\x1b[2J", id="unfit for a terminal"),
    ],
)
def test_a_shim_of_which_nobody_knows_the_namespace_may_be_a_pods(
    machine: Machine, command: tuple[str, ...], pod: str
) -> None:
    process = machine.process(*command)
    assert pods(machine) == (f"pod sandbox {pod} lives (process {process})",)


@pytest.mark.parametrize("namespace", ["moby", "default", "k8s.io.not"])
def test_a_shim_of_another_namespace_is_no_pod(machine: Machine, namespace: str) -> None:
    machine.process(SHIM, "-namespace", namespace)
    machine.process("grep", "containerd-shim", "-namespace", "k8s.io")
    assert pods(machine) == ()


def test_a_process_that_ended_while_we_looked_is_nothing(machine: Machine) -> None:
    process = machine.process(SHIM, "-id", ID)
    for name in ("cmdline", "environ"):
        (machine.proc / f"{process}/{name}").unlink()
    assert owners(machine, caged=False) == set()


def test_a_status_that_cannot_be_read_is_one_doubt_however_many_there_are(machine: Machine) -> None:
    for process in (machine.process(SHIM), machine.process(SHIM)):
        (machine.proc / f"{process}/status").unlink()
        (machine.proc / f"{process}/status").symlink_to("status")
    [doubt] = look(machine.node, (ID,), (), Sight(caged=True)).doubts
    assert doubt.endswith("/status': Too many levels of symbolic links")


def test_a_state_that_cannot_be_listed_is_a_doubt(machine: Machine) -> None:
    (machine.root / "run/containerd").mkdir()
    (machine.root / "run/containerd/io.containerd.runtime.v2.task").symlink_to("io.containerd.runtime.v2.task")
    [doubt] = look(machine.node, (ID,), (), Sight(caged=True)).doubts
    assert doubt.endswith("/run/containerd/io.containerd.runtime.v2.task': Too many levels of symbolic links")


def test_other_names_in_proc_are_no_processes(machine: Machine) -> None:
    machine.file("proc/self/status")
    machine.file("proc/0x1/status")
    machine.process("x", pid=4711)
    assert sorted(traces.processes(Sight(caged=True), str(machine.proc))) == [1, 4711]
