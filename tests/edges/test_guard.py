"""Nothing is set aside while pods may live: units, the socket, then processes and what is mounted."""

import socket
from collections.abc import Callable

import pytest
from conftest import SANDBOX, Kept, Systemd, Tree, boot
from machine import NOBODY, SETUID, Machine

from cni_lease_reset.core.findings import Lease, MessageId
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges import guard
from cni_lease_reset.edges.living import CONTAINERD
from cni_lease_reset.edges.node import Node

ORDER = "; if so at each boot: systemctl edit cni-lease-reset.service, [Unit] Before="
SHIM = "/var/lib/rancher/rke2/bin/containerd-shim-runc-v2"
K3S_SOCKET = "/run/k3s/containerd/containerd.sock"
DUE = [Lease("10.52.0.2", SANDBOX, torn=False), Lease("10.52.0.3", None, torn=True)]


@pytest.fixture
def machine(tree: Tree) -> Machine:
    """A machine that lost its power, with two leases."""
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3", "")
    return Machine(tree.root)


def refused(tree: Tree, journal: Kept, manager: Systemd | None = None) -> str:
    """Boot, and return why it was refused: nothing moved, and the next boot will try again."""
    outcome = boot(tree, journal, manager)
    assert (outcome.result, outcome.total.cleared) == ("refused", 0)
    assert tree.leases() == {"10.52.0.2", "10.52.0.3"}
    assert tree.marker() == ""
    return outcome.why


def test_where_nobody_lives_all_goes(tree: Tree, machine: Machine, journal: Kept) -> None:
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.total.cleared, outcome.remarks) == ("cleared", 2, ())


@pytest.mark.parametrize("state", ["active", "activating", "deactivating", "reloading", "maintenance"])
def test_a_unit_that_is_up_has_pods(tree: Tree, machine: Machine, journal: Kept, state: str) -> None:
    why = refused(tree, journal, Systemd({"rke2-server.service": state}))
    assert why == f"rke2-server.service is {state}, pods may live"


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_a_unit_that_was_up_since_this_kernel_started_left_pods(
    tree: Tree, machine: Machine, journal: Kept, state: str
) -> None:
    why = refused(tree, journal, Systemd({"k3s.service": state}, ran=["k3s.service"]))
    assert why == "k3s.service has been up since this kernel started, pods may live"


def test_a_unit_that_ours_is_not_before_is_to_be_ordered(tree: Tree, machine: Machine, journal: Kept) -> None:
    tree.config("runtime_units: [k3s-node.service]\n")
    why = refused(tree, journal, Systemd({"k3s-node.service": "active"}))
    assert why == f"k3s-node.service is active, pods may live{ORDER}k3s-node.service"


@pytest.fixture
def listening(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A root short enough for a socket's path."""
    monkeypatch.chdir(machine.root)
    (machine.root / "run/k3s/containerd").mkdir(parents=True)
    return Node(".")


def test_a_containerd_that_answers_has_pods_whatever_its_unit_is_called(listening: Node) -> None:
    """K3s as ``k3s-node.service``: no unit of ours is up, and none ever was."""
    with socket.socket(socket.AF_UNIX) as containerd:
        containerd.bind(f".{CONTAINERD}")
        containerd.listen()
        why = guard.refusal(listening, Config(), Systemd(), [], DUE)
    assert why == f"a containerd answers at '{K3S_SOCKET}', pods may live{ORDER}its unit (and add it to runtime_units)"
    assert guard.refusal(listening, Config(), Systemd(), [], DUE) is None, "a socket that it left behind is nobody"


@pytest.mark.parametrize("name", ["cni-1", "0c3a3a6e-8d5f-1b2c-0123-456789abcdef"])
def test_a_mounted_network_namespace_of_a_pod_is_one(tree: Tree, machine: Machine, journal: Kept, name: str) -> None:
    machine.file("proc/1/mountinfo", f"43 42 0:4 net:[4026532245] /run/netns/{name} rw shared:2 - nsfs nsfs rw\n")
    assert refused(tree, journal) == f"the network namespace of a pod is mounted at '/run/netns/{name}'"


def test_an_address_that_is_set_somewhere_is_a_living_pods(tree: Tree, machine: Machine, journal: Kept) -> None:
    pod = machine.process("pause", user=NOBODY)
    machine.addresses(pod, "10.52.0.3")
    assert refused(tree, journal) == (
        f"10.52.0.3 is set in a network namespace of process {pod}, the pod of its lease lives"
    )


@pytest.mark.parametrize(
    "command",
    [
        pytest.param((SHIM, "-namespace", "moby", "-id", SANDBOX, "-address", "/run/containerd/c.sock"), id="Docker's shim"),
        pytest.param(("/usr/bin/conmon", "-b", "/run/x", "-c", SANDBOX, "-u", "1"), id="CRI-O's conmon"),
        pytest.param(("/usr/bin/qemu", "-workdir", f"/run/vc/k8s.io/{SANDBOX}/root"), id="a virtual machine"),
    ],
)  # fmt: skip
def test_an_owner_of_any_engine_lives(tree: Tree, machine: Machine, journal: Kept, command: tuple[str, ...]) -> None:
    machine.process(*command)
    assert refused(tree, journal) == f"container {SANDBOX[:13]} lives, the owner of a lease"


def test_a_sandbox_that_kuasar_keeps_lives(tree: Tree, machine: Machine, journal: Kept) -> None:
    machine.file(f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{'c' * 64}/sandbox", SANDBOX)
    assert refused(tree, journal) == f"container {SANDBOX[:13]} lives, the owner of a lease"


@pytest.mark.parametrize("flags", [["-namespace", "k8s.io"], ["--namespace", "k8s.io"], ["-namespace=k8s.io"], []])
def test_a_pod_lives_even_where_it_owns_no_lease(tree: Tree, machine: Machine, journal: Kept, flags: list[str]) -> None:
    process = machine.process(SHIM, *flags, "-id", "c" * 64)
    assert refused(tree, journal) == f"pod sandbox {'c' * 13} lives (process {process})"


def test_several_pods_are_counted(tree: Tree, machine: Machine, journal: Kept) -> None:
    for number in "abc":
        machine.process(SHIM, "-namespace", "k8s.io", "-id", number * 64)
    assert refused(tree, journal).endswith(") (and 2 more)")


def docker(machine: Machine) -> None:
    machine.process(SHIM, "-namespace", "moby", "-id", "d" * 64, "-address", "/run/containerd/containerd.sock")


def nobody(machine: Machine) -> None:
    machine.process(SHIM, "-namespace", "k8s.io", "-id", SANDBOX, user=NOBODY)


def nobody_with_a_bogus_address(machine: Machine) -> None:
    machine.process(SHIM, "-namespace", "k8s.io", "-address", "/run/" + "x" * 200, user=NOBODY)


def setuid(machine: Machine) -> None:
    machine.process("containerd-shim", "-c", SANDBOX, "root", user=SETUID)


def podman_in_a_pod(machine: Machine) -> None:
    machine.process("/usr/bin/conmon", "-c", SANDBOX, nspid="4711\t7")


@pytest.mark.parametrize("other", [docker, nobody, nobody_with_a_bogus_address, setuid, podman_in_a_pod])
def test_who_is_no_pod_or_only_says_so_refuses_nothing(
    tree: Tree, machine: Machine, journal: Kept, other: Callable[[Machine], None]
) -> None:
    other(machine)
    assert boot(tree, journal).result == "cleared"


def hide(machine: Machine) -> None:
    """As ``hidepid=`` does."""
    (machine.proc / "1/net/fib_trie").unlink()


def test_a_doubt_is_a_remark_where_the_runtime_never_ran_and_this_is_the_boot(
    tree: Tree, machine: Machine, journal: Kept
) -> None:
    hide(machine)
    outcome = boot(tree, journal)
    assert outcome.result == "cleared"
    [remark] = outcome.remarks
    assert remark.about is MessageId.IGNORED
    assert remark.text.startswith("the processes of this machine are hidden from us (")
    assert remark.text.endswith("; the runtime never ran, ignoring")


@pytest.mark.parametrize(
    "manager",
    [
        pytest.param(Systemd(starting=False), id="the boot is over"),
        pytest.param(Systemd(exists=False), id="the runtime is none of those units"),
        pytest.param(Systemd(down=None, remark="no bus"), id="nobody answered"),
    ],
)
def test_else_a_doubt_refuses(tree: Tree, machine: Machine, journal: Kept, manager: Systemd) -> None:
    hide(machine)
    assert refused(tree, journal, manager).startswith("the processes of this machine are hidden from us (")


def test_under_living_pods_no_doubt_hides_that_the_runtime_ran(tree: Tree, machine: Machine, journal: Kept) -> None:
    hide(machine)
    assert "has been up since" in refused(tree, journal, Systemd(ran=["rke2-agent.service"]))


def test_who_is_seen_beside_a_doubt_lives(tree: Tree, machine: Machine, journal: Kept) -> None:
    hide(machine)
    machine.process("/usr/bin/conmon", "-c", SANDBOX)
    assert "the owner of a lease" in refused(tree, journal)


def test_where_no_unit_of_the_runtime_is_known_it_is_said(tree: Tree, machine: Machine, journal: Kept) -> None:
    outcome = boot(tree, journal, Systemd(exists=False))
    assert (outcome.result, [remark.about for remark in outcome.remarks]) == ("cleared", [MessageId.NO_RUNTIME])
    assert outcome.remarks[0].text == (
        "No unit of runtime_units is on this node (rke2-server.service, rke2-agent.service, k3s.service, "
        "k3s-agent.service, kubelet.service); if its runtime has another name, add that"
    )


def test_the_look_at_processes_alone_decides_where_systemd_does_not_answer(
    tree: Tree, machine: Machine, journal: Kept
) -> None:
    outcome = boot(tree, journal, Systemd(down=None, remark="no bus"))
    assert outcome.result == "cleared"
    assert [remark.text for remark in outcome.remarks] == ["no bus; relying on the look at processes alone"]


def test_where_systemctl_answers_that_is_told(tree: Tree, machine: Machine, journal: Kept) -> None:
    outcome = boot(tree, journal, Systemd(remark="no bus; asked systemctl instead"))
    assert [remark.text for remark in outcome.remarks] == ["no bus; asked systemctl instead"]


def test_boot_reads_nobodys_environment(tree: Tree, machine: Machine, journal: Kept) -> None:
    """Its cage has no right to: that is no doubt, and no evidence."""
    plugin = machine.process("/opt/cni/bin/bridge", environment=[f"CNI_CONTAINERID={SANDBOX}"])
    environment = machine.proc / f"{plugin}/environ"
    environment.unlink()
    environment.symlink_to("environ")  # ELOOP to whoever reads it
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.remarks) == ("cleared", ())
