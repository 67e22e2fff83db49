"""Whatever others wrote into the files that status and history read: an answer, never a traceback."""

import json

from cni_config import flannel, write
from conftest import Tree
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_lease_reset.commands import history, mounts, pools, rivals
from cni_lease_reset.commands.screen import Screen
from cni_lease_reset.core.events import MessageId
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges.node import STATE_DIRECTORY

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


@settings(deadline=None)
@given(document=DOCUMENTS, subnet=st.sampled_from(WORDS) | st.text())
def test_a_cni_configuration_tells_pools_or_nothing(lasting_tree: Tree, document: object, subnet: str) -> None:
    write(lasting_tree, "a.conflist", json.dumps(document))
    flannel(lasting_tree, f"FLANNEL_SUBNET={subnet}\nFLANNEL_IPV6_SUBNET={subnet}\n")
    found = pools.read(lasting_tree.node, Config())
    assert found.unread == ()
    for network in (*found.ranges, "k8s-pod-network"):
        assert all(pool.size > 0 for pool in found.of(network, ["10.0.0.5", "fd00::1"]))


@settings(deadline=None)
@given(text=LINES)
def test_lines_of_tmpfiles_and_mounts_are_read_or_left(lasting_tree: Tree, text: str) -> None:
    lasting_tree.put("etc/tmpfiles.d/a.conf", text)
    lasting_tree.put("proc/self/mountinfo", text)
    assert all(line.isprintable() for line in rivals.find(lasting_tree.node, [NETWORK]))
    mounts.volatile(lasting_tree.node, STATE_DIRECTORY)


@settings(deadline=None)
@given(entry=ENTRIES)
def test_an_entry_of_the_journal_is_a_line_or_left(entry: dict[str, object]) -> None:
    entry = {"MESSAGE_ID": MessageId.CLEARED, "_BOOT_ID": "b", **entry}
    found = history.History(history.parse(json.dumps(entry).encode()), volatile=False, remarks=())
    assert json.loads(history.as_json(found, None))["version"] == 1
    shown = history.as_text(found, None, Screen())
    assert shown.replace("\n", "").isprintable()
