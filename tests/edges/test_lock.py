"""One program at a time, and nobody else can hold it up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import Kept, Systemd, Tree, held_lock

from cni_lease_reset import service
from cni_lease_reset.core.errors import BusyError
from cni_lease_reset.edges import durable, leases
from cni_lease_reset.edges.lock import only_one


def test_two_at_once_are_refused(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    with only_one(tree.node), pytest.raises(BusyError):
        service.boot(tree.node, Systemd(), journal)
    assert tree.marker() == ""


def test_nobody_else_can_keep_us_from_working(journal: Kept) -> None:
    """A lock needs a descriptor only, and that a right to read; but everybody may know what the marker says."""
    with TemporaryDirectory(dir="/dev/shm") as root:
        tree = Tree(Path(root))
        tree.root.chmod(0o755)
        tree.mark("clean")
        tree.state.chmod(0o755)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        lock, read = [*nobody, "flock", f"{tree.state}", "true"], [*nobody, "cat", f"{tree.state}/marker"]
        assert subprocess.run(lock, check=False).returncode == 0
        service.boot(tree.node, Systemd(), journal)
        denied = subprocess.run(lock, check=False, capture_output=True, text=True)
        assert (denied.returncode, "Permission denied" in denied.stderr) == (66, True), denied
        assert subprocess.run(read, check=True, capture_output=True, text=True).stdout == tree.marker()


def test_the_directory_of_another_user_serves_as_it_is(tree: Tree) -> None:
    tree.state.mkdir(parents=True)
    tree.root.chmod(0o755)
    os.chown(tree.state, 4242, 4242)
    tree.state.chmod(0o777)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "cni_lease_reset"]
    done = subprocess.run([*command, "--root", str(tree.root), "boot"], text=True, capture_output=True, check=False)
    assert (done.returncode, tree.state.stat().st_mode & 0o777) == (0, 0o777), done.stderr


@contextmanager
def stopped_child() -> Iterator[None]:
    """A child that was forked here and stopped before it closed anything: it has what we had open."""
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_lock_is_free_even_if_a_forked_child_still_has_it(tree: Tree) -> None:
    with ExitStack() as children:
        with only_one(tree.node, create=True):
            children.enter_context(stopped_child())
        with only_one(tree.node):
            pass


@pytest.fixture
def data(tree: Tree) -> Iterator[int]:
    tree.lease("10.52.0.2")
    with durable.directory("/var/lib/cni/networks", root=tree.node.root) as directory:
        yield directory


def had(hold: leases.Hold, data: int) -> bool:
    """Whether a lock can be had."""
    with hold:
        return hold.take(data, "k8s-pod-network") is not None


def test_host_locals_lock_is_free_even_so(tree: Tree, data: int) -> None:
    with ExitStack() as children:
        with leases.Hold(tree.node) as hold:
            hold.take(data, "k8s-pod-network")
            assert not had(leases.Hold(tree.node), data)
            children.enter_context(stopped_child())
        assert had(leases.Hold(tree.node), data)


def test_host_locals_lock_is_waited_for_as_long_as_told(tree: Tree, data: int) -> None:
    with held_lock(tree):
        began = time.monotonic()
        assert not had(leases.Hold(tree.node, patience=0.2), data)
        waited = time.monotonic() - began
        assert not had(leases.Hold(tree.node), data)
    assert 0.2 <= waited < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0), "no alarm is left behind"


def test_a_rehearsal_makes_no_lock_and_holds_none(tree: Tree, data: int) -> None:
    rehearsal = tree.node._replace(rehearsal=True)
    assert had(leases.Hold(rehearsal), data)
    assert not (tree.network / "lock").exists()
    with leases.Hold(tree.node) as hold:
        hold.take(data, "k8s-pod-network")
        assert not had(leases.Hold(rehearsal), data)
    with leases.Hold(rehearsal) as seen:
        assert seen.take(data, "k8s-pod-network") is not None
        assert had(leases.Hold(tree.node), data)


def test_a_lock_that_cannot_be_had_leaves_no_descriptor_open(tree: Tree, data: int) -> None:
    with held_lock(tree):
        before = os.listdir("/proc/self/fd")
        with leases.Hold(tree.node) as hold:
            assert hold.take(data, "k8s-pod-network") is None
            assert os.listdir("/proc/self/fd") == before
