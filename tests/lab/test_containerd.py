"""Who lives beside a real containerd 2: real sandboxes, shims, network namespaces and leases, and what is left of them.

Its unit is one that our configuration does not know, so that nothing but the look at who lives keeps a lease.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from conftest import NO_LAB

from cni_lease_reset.core.findings import Living
from cni_lease_reset.edges.living import CONTAINERD, answers

from .conftest import make_image
from .machine import copy
from .node import LEASES, UNIT
from .pods import RUNTIME, SUITE, TASKS, Pod, PodNode, install_containerd

CONTAINER: Final = "c0" * 32
OLD: Final = "0d" * 32


@pytest.fixture(scope="module")
def layers(room: Path) -> str:
    """What lies below the disks of this file's nodes."""
    tried = subprocess.run(
        ["unshare", "--net", "ip", "link", "add", "type", "bridge"], capture_output=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"{NO_LAB} that has bridges: {tried.stderr.decode().strip()}")
    image = make_image(*SUITE)
    install_containerd(room / "containerd", image)
    return f"{room / 'containerd'}:{image}"


@pytest.fixture(scope="module")
def imported(room: Path, layers: str) -> Path:
    """A disk on which containerd has what sandboxes are made of: it knows that for certain from its next start on."""
    node = PodNode(room / "imported", layers)
    node.mask()
    node.start()
    try:
        node.run(f"systemctl start {RUNTIME}")
        node.import_pause()
        node.run(f"systemctl stop {RUNTIME}")
    finally:
        node.crash()
    return node.disk


@pytest.fixture
def node(imported: Path, layers: str, room: Path, tmp_path: Path) -> Iterator[PodNode]:
    """A node whose containerd is not up yet."""
    node = PodNode(copy(imported, room / tmp_path.name), layers)
    node.start()
    yield node
    if node.is_on():
        node.crash()


@pytest.fixture
def pod(node: PodNode) -> Pod:
    node.run(f"systemctl start {RUNTIME}")
    return node.pod("web")


def test_a_living_pod_is_seen_in_every_way(node: PodNode, pod: Pod) -> None:
    found = node.whose(pod.lease)
    assert found._replace(pods=()) == Living(frozenset({pod.sandbox}), {pod.address: pod.pause})
    assert node.whose(pod.lease, caged=True) == found
    shim, namespace = found.pods
    assert shim == SHIM.format(pod=pod)
    assert namespace.startswith(MOUNT)
    assert node.status() == (1, 0)


def kill_shim(node: PodNode, pod: Pod) -> None:
    node.kill(pod.shim)


def kill_pause(node: PodNode, pod: Pod) -> None:
    node.kill(pod.pause)


def remove_task(node: PodNode, pod: Pod) -> None:
    node.run(f"umount /{TASKS}/{pod.sandbox}/rootfs; rm -r /{TASKS}/{pod.sandbox}")


def remove_container(node: PodNode, pod: Pod) -> None:
    node.run(f"rm -r /{TASKS}/{CONTAINER}")


def unmount_namespace(node: PodNode, pod: Pod) -> None:
    node.run("umount /run/netns/cni-*")


def by_owner(pod: Pod) -> Living:
    return Living(owners=frozenset({pod.sandbox}))


def by_process(pod: Pod) -> Living:
    return Living(addresses={pod.address: pod.pause})


def by_mount(pod: Pod) -> Living:
    return Living(addresses={pod.address: None})


class Trace(NamedTuple):
    """What a pod leaves."""

    remove: Callable[[PodNode, Pod], None]
    is_found: Callable[[Pod], Living]  # what says that it lives
    refusal: str  # of boot


SHIM: Final = "pod sandbox {pod.sandbox:.13} lives (process {pod.shim})"
OWNER: Final = "container {pod.sandbox:.13} lives, the owner of a lease"
PROCESS: Final = "{pod.address} is set in a network namespace of process {pod.pause}, the pod of its lease lives"
MOUNT: Final = "the network namespace of a pod is mounted at '/run/netns/cni-"
# In the order of a death.
TRACES: Final = {
    "its shim": Trace(kill_shim, by_owner, SHIM),
    "its task's directory": Trace(remove_task, by_owner, OWNER),
    "its name in a container's directory": Trace(remove_container, by_owner, OWNER),
    "its address in a process's namespace": Trace(kill_pause, by_process, PROCESS),
    "its address in a mounted namespace": Trace(unmount_namespace, by_mount, MOUNT),
}


def leave(node: PodNode, pod: Pod, *traces: str) -> None:
    """Let just these traces of a pod be, and no containerd: it would take away some of them."""
    container = node.container(pod, CONTAINER)
    node.run(f"systemctl stop {RUNTIME}")
    node.kill(container)
    for name, trace in TRACES.items():
        if name not in traces:
            trace.remove(node, pod)


@pytest.mark.parametrize("name", TRACES)
def test_any_one_trace_of_a_pod_keeps_its_lease(node: PodNode, pod: Pod, name: str) -> None:
    leave(node, pod, name)
    trace = TRACES[name]
    assert node.whose(pod.lease)._replace(pods=()) == trace.is_found(pod)
    assert node.status() == (1, 0)
    node.run("cni-lease-reset recover --yes")
    assert node.leases() == {pod.address}

    told = node.boot()
    assert (told["CNI_VERDICT"], told["CNI_LEASES_KEPT"]) == ("unknown", "1"), told["MESSAGE"]
    assert f"; {trace.refusal.format(pod=pod)}" in told["CNI_REASON"], told["CNI_REASON"]
    assert node.leases() == {pod.address}
    assert node.marked() == "none"


def test_while_a_sandbox_is_started_its_directory_keeps_its_lease(node: PodNode) -> None:
    """Beside those of the tasks: its shim makes sandboxes itself. It has not said its id anywhere yet."""
    node.run(f"systemctl start {RUNTIME}")
    lease = node.waiting_pod("vm")
    assert lease.owner is not None
    assert node.whose(lease)._replace(pods=()) == Living(frozenset({lease.owner}), {lease.address: None})
    node.run("umount /run/netns/cni-*")
    assert node.whose(lease) == Living(frozenset({lease.owner}))
    assert node.status() == (1, 0)
    node.run("cni-lease-reset recover --yes")
    assert node.leases() == {lease.address}


@pytest.mark.parametrize("who", ["recover", "boot"])
def test_without_any_trace_a_lease_has_leaked(node: PodNode, pod: Pod, who: str) -> None:
    leave(node, pod)
    assert node.whose(pod.lease) == Living()
    assert node.status() == (0, 1)
    if who == "boot":
        told = node.boot()
        assert (told["CNI_VERDICT"], told["CNI_LEASES_CLEARED"]) == ("unknown", "1"), told["MESSAGE"]
    else:
        node.run("cni-lease-reset recover --yes")
    assert node.leases() == frozenset()


def test_what_containerd_leaves_of_a_pod_that_died_is_its_namespace(node: PodNode, pod: Pod) -> None:
    """Until kubelet stops the sandbox. It may do so after the lease went, and then it takes no other pod's."""
    node.kill(pod.pause)
    node.run(f"timeout 60 sh -c 'while [ -e /{TASKS}/{pod.sandbox} ]; do sleep 0.01; done'")  # containerd deletes it
    assert not (node.root / f"proc/{pod.shim}").exists()
    assert node.whose(pod.lease)._replace(pods=()) == by_mount(pod)
    node.run("cni-lease-reset recover --yes")
    assert node.leases() == {pod.address}

    unmount_namespace(node, pod)
    assert node.whose(pod.lease) == Living()
    node.run("cni-lease-reset recover --yes")
    assert node.leases() == frozenset()
    other = node.pod("other")
    node.cri("StopPodSandbox", pod.sandbox)
    assert node.leases() == {other.address}
    assert node.whose(other.lease).owners == {other.sandbox}


def test_after_a_power_cut_leases_go_and_those_of_new_pods_stay(node: PodNode) -> None:
    assert node.boot()["CNI_LEASES_FOUND"] == "0"
    node.run(f"systemctl start {RUNTIME}")
    old = node.pod("old")
    node.crash()

    node.start()
    (told,) = node.verdicts()
    assert (told["CNI_VERDICT"], told["CNI_LEASES_CLEARED"]) == ("unclean", "1"), told["MESSAGE"]
    assert node.leases() == frozenset()
    node.run(f"systemctl start {RUNTIME}")
    new = node.pod("new")
    node.cri("StopPodSandbox", old.sandbox)  # as kubelet does with what it finds
    node.run(f"systemctl restart {UNIT}")
    _, told = node.verdicts()
    assert told["CNI_VERDICT"] == "same-boot"
    assert node.leases() == {new.address}
    assert node.status() == (1, 0)


def test_containerd_answers_while_it_is_up(node: PodNode) -> None:
    socket = node.root / CONTAINERD.lstrip("/")
    assert not answers(node.seen)
    node.run(f"systemctl start {RUNTIME}")
    assert answers(node.seen)
    node.kill(int(*node.show("MainPID", unit=RUNTIME)))
    assert socket.is_socket()
    assert not answers(node.seen)
    node.run(f"systemctl reset-failed {RUNTIME}; systemctl start {RUNTIME}")
    assert answers(node.seen)
    node.run(f"systemctl stop {RUNTIME}")
    assert not answers(node.seen)


@pytest.mark.parametrize("is_up", [True, False])
def test_boot_takes_nothing_while_containerd_answers(node: PodNode, is_up: bool) -> None:
    node.write(f"{LEASES}/10.52.0.9", f"{OLD}\r\neth0")
    node.run(f"systemctl start {RUNTIME}")
    if not is_up:
        node.run(f"systemctl stop {RUNTIME}")
    told = node.boot()
    assert (f"; a containerd answers at '{CONTAINERD}', pods may live" in told["CNI_REASON"]) is is_up, told[
        "CNI_REASON"
    ]
    assert node.leases() == ({"10.52.0.9"} if is_up else frozenset())
