"""Whatever others wrote into the files that status and history read: an answer, never a traceback."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Tree
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_lease_reset.commands import history, mounts, pools, rivals
from cni_lease_reset.commands.screen import Screen
from cni_lease_reset.core.events import MessageId
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges.node import STATE_DIRECTORY

FILES = ("etc/cni/net.d/a.conflist", "run/flannel/subnet.env", "etc/tmpfiles.d/a.conf", "proc/self/mountinfo")
NETWORK = "/var/lib/cni/networks/k8s-pod-network"
KEYS = [
    "name",
    "plugins",
    "ipam",
    "type",
    "subnet",
    "ranges",
    "rangeStart",
    "rangeEnd",
    "gateway",
    "dataDir",
    "delegates",
]
WORDS = ("10.0.0.0/24", "fd00::/64", "10.0.0.5", "fd00::1", "host-local", "flannel", "usePodCidr", "k8s-pod-network")
SCALARS = st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS) | st.text()
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner), max_leaves=30
)
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
VALUES = st.sampled_from(("9" * 18, "-1", "unclean")) | st.text() | st.none() | st.lists(st.integers())
ENTRIES = st.dictionaries(
    st.sampled_from(("_BOOT_ID", "__REALTIME_TIMESTAMP", "CNI_VERDICT", "CNI_LEASES_FOUND", "CNI_USEC")), VALUES
)


@pytest.fixture(scope="module")
def node() -> Iterator[Tree]:
    with tempfile.TemporaryDirectory() as directory:
        tree = Tree(Path(directory))
        for file in FILES:
            (tree.root / file).parent.mkdir(parents=True, exist_ok=True)
        yield tree


def write(tree: Tree, file: str, text: str) -> None:
    (tree.root / file).write_bytes(text.encode("utf-8", "surrogatepass"))


@settings(deadline=None)
@given(document=DOCUMENTS, subnet=st.sampled_from(WORDS) | st.text())
def test_a_cni_configuration_tells_pools_or_nothing(node: Tree, document: object, subnet: str) -> None:
    write(node, FILES[0], json.dumps(document))
    write(node, FILES[1], f"FLANNEL_SUBNET={subnet}\nFLANNEL_IPV6_SUBNET={subnet}\n")
    found = pools.read(node.node, Config())
    assert found.unread == ()
    for network in (*found.ranges, "k8s-pod-network"):
        assert all(pool.size > 0 for pool in found.of(network, ["10.0.0.5", "fd00::1"]))


@settings(deadline=None)
@given(text=LINES)
def test_lines_of_tmpfiles_and_mounts_are_read_or_left(node: Tree, text: str) -> None:
    write(node, FILES[2], text)
    write(node, FILES[3], text)
    assert all(line.isprintable() for line in rivals.find(node.node, [NETWORK]))
    mounts.volatile(node.node, STATE_DIRECTORY)


@settings(deadline=None)
@given(entry=ENTRIES)
def test_an_entry_of_the_journal_is_a_line_or_left(entry: dict[str, object]) -> None:
    entry = {"MESSAGE_ID": MessageId.CLEARED, "_BOOT_ID": "b", **entry}
    found = history.History(history.parse(json.dumps(entry).encode()), volatile=False, remarks=())
    assert json.loads(history.as_json(found, None))["version"] == 1
    shown = history.as_text(found, None, Screen())
    assert shown.replace("\n", "").isprintable()
