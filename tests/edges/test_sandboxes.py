"""Who lives, by what containerd leaves under /run and in /proc; sockets are real ones."""

import socket
from pathlib import Path

import pytest
from conftest import SANDBOX, Tree

from cni_lease_reset.edges import sandboxes as living

K3S = "/run/k3s/containerd/containerd.sock"


def process(tree: Tree, pid: int, *command: str) -> None:
    path = tree.root / f"proc/{pid}/cmdline"
    path.parent.mkdir(parents=True)
    path.write_text("\0".join((*command, "")))


@pytest.mark.parametrize("program", ["containerd-shim-runc-v2", "containerd-shim-kata-v2", "containerd-shim-runsc-v1"])
@pytest.mark.parametrize("namespace", ["k8s.io", "moby"])
def test_a_shim_of_any_runtime_and_namespace_counts(tree: Tree, program: str, namespace: str) -> None:
    address = "unix:///run/other/containerd.sock"
    process(tree, 7, f"/usr/bin/{program}", "-namespace", namespace, "-id", SANDBOX, "-address", address)
    seen = living.look(tree.node)
    assert seen == living.Sandboxes(frozenset({SANDBOX}), (K3S, "/run/other/containerd.sock"))


@pytest.mark.parametrize("state", ["run/k3s/containerd", "run/containerd", "run/other"])
def test_a_task_directory_counts_without_a_shim(tree: Tree, state: str) -> None:
    process(tree, 7, "containerd-shim", "-namespace", "x", "-id", "y", "-address", "/run/other/containerd.sock")
    (tree.root / state / "io.containerd.runtime.v2.task/k8s.io" / SANDBOX).mkdir(parents=True)
    assert living.look(tree.node).alive == {"y", SANDBOX}


@pytest.mark.parametrize(
    ("command", "doubt"),
    [
        (("/usr/bin/conmon", "-c", "x"), "conmon is at work"),
        (("crio",), "crio is at work"),
        (("containerd-shim", "-namespace", "moby", "-workdir", "/x"), "no -id"),
        (("podman-conmon",), None),
    ],
)
def test_what_makes_the_answer_doubtful(tree: Tree, command: tuple[str, ...], doubt: str | None) -> None:
    process(tree, 7, *command)
    seen = living.look(tree.node).doubt
    assert seen == doubt if doubt is None else doubt in str(seen)


def test_hidden_processes_are_doubt(tree: Tree) -> None:
    (tree.root / "proc").rename(tree.root / "hidden")
    assert "cannot be listed" in str(living.look(tree.node).doubt)


def test_a_containerd_answers_from_listen_to_close(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.root)  # a socket's path may not exceed 107 bytes
    path = Path(tree.root, K3S[1:])
    path.parent.mkdir(parents=True)
    seen = living.look(tree.node)
    assert living.answering(tree.node, seen) is None
    with socket.socket(socket.AF_UNIX) as containerd:
        containerd.bind(K3S[1:])
        assert living.answering(tree.node, seen) is None
        containerd.listen(0)
        assert [living.answering(tree.node, seen) for _ in range(3)] == [K3S] * 3
    assert path.exists()
    assert living.answering(tree.node, seen) is None


def test_an_address_that_cannot_be_asked_counts_as_answering(tree: Tree) -> None:
    seen = living.Sandboxes(frozenset(), ("/" + 200 * "x",))
    assert living.answering(tree.node, seen) is not None


def test_network_namespaces_of_pods_are_seen(tree: Tree) -> None:
    assert not living.has_network_namespaces(tree.node)
    (tree.root / "run/netns").mkdir(parents=True)
    (tree.root / "run/netns/mine").touch()
    assert not living.has_network_namespaces(tree.node)
    (tree.root / "run/netns/cni-1234").touch()
    assert living.has_network_namespaces(tree.node)


def test_a_proc_that_cannot_be_listed_proves_nothing(tree: Tree) -> None:
    (tree.root / "proc").rename(tree.root / "gone")
    assert "cannot be listed" in str(living.processes(tree.node).unproven)


def test_a_process_that_ends_meanwhile_is_no_pod(tree: Tree) -> None:
    (tree.root / "proc/99").mkdir()
    assert living.processes(tree.node) == living.Processes()
