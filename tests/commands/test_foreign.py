"""Files that others wrote: whatever stands in them, or in their place, holds nothing up."""

import os

from conftest import Tree
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_lease_reset.commands import pools, rivals
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges.node import STATE_DIRECTORY

NETWORK = "/var/lib/cni/networks/k8s-pod-network"
PIECES = (
    "r",
    "R!",
    "D",
    "/var/lib/cni",
    "/var/*",
    f"{NETWORK}/*",
    "[",
    "'",
    '"',
    "#",
    "\\",
    "\0",
    "\n",
    " - ",
    "\\777",
)
LINES = st.lists(st.sampled_from(PIECES) | st.text()).map(" ".join)


@settings(deadline=None)
@given(text=LINES)
def test_lines_of_tmpfiles_and_mounts_are_read_or_left(lasting_tree: Tree, text: str) -> None:
    lasting_tree.put("etc/tmpfiles.d/a.conf", text)
    lasting_tree.put("proc/self/mountinfo", text)
    assert all(line.isprintable() for line in rivals.find(lasting_tree.node, [NETWORK]))
    rivals.volatile(lasting_tree.node, STATE_DIRECTORY)


def test_a_fifo_or_a_broken_link_holds_nothing_up(tree: Tree) -> None:
    folder = tree.root / "etc/cni/net.d"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "a.conf")
    (folder / "b.conf").symlink_to("/nowhere/at/all")
    unread = pools.read(tree.node, Config()).unread
    assert unread[0] == "'/etc/cni/net.d/a.conf': not a regular file"
    assert unread[1].endswith("etc/cni/net.d/b.conf': No such file or directory")
