"""One program at a time, and nobody else can hold it up."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import OTHER, Kept, Systemd, Tree

from cni_lease_reset import service
from cni_lease_reset.core.errors import BusyError
from cni_lease_reset.edges.lock import only_one


def test_two_at_once_are_refused(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    with only_one(tree.node), pytest.raises(BusyError):
        service.boot(tree.node, Systemd(), journal)
    assert OTHER in tree.marker()


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
