"""Mounts that do not survive a boot, and the marker with them."""

import pytest
from conftest import Tree

from cni_lease_reset.commands import rivals
from cni_lease_reset.edges.node import STATE_DIRECTORY

ROOT = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
VAR = "30 22 0:26 / /var rw shared:5 - tmpfs tmpfs rw,size=65536k\n"
CNI = "31 30 254:3 /cni /var/lib/cni rw shared:6 - ext4 /dev/vda3 rw\n"
RUN = "23 22 0:20 / /run rw shared:2 - tmpfs tmpfs rw,mode=755\n"
OVERLAY = (
    "40 22 0:33 / /var rw shared:9 - overlay overlay rw,lowerdir=/var,upperdir=/run/o\\040v/upper,workdir=/run/w\n"
)
# raspi-config's: the root before it, where /upper was a tmpfs, is out of sight since the real one took its place.
RASPBERRY = "22 1 0:30 / / rw,noatime - overlay overlay rw,lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work\n"
HIDDEN = "/ is an overlay that writes to /upper/data, and no mount in sight holds that (raspi-config's is in memory)"
DISK = "36 22 254:7 / /media/rw rw - ext4 /dev/vda7 rw\n"


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (ROOT, None),
        (ROOT + VAR, "/var is a tmpfs"),
        (ROOT + VAR + CNI, None),  # Harvester: only listed paths persist
        (ROOT + CNI + CNI.replace("ext4", "tmpfs"), "/var/lib/cni is a tmpfs"),
        (ROOT + CNI.replace("ext4", "tmpfs") + CNI, None),  # the last one covers the others
        (ROOT + OVERLAY, None),
        (ROOT + RUN + OVERLAY, "/var is an overlay that writes to /run/o v/upper, and /run is a tmpfs"),
        (ROOT.replace("ext4", "overlay"), None),
        (RASPBERRY, HIDDEN),
        (RASPBERRY + RUN, HIDDEN),
        (RASPBERRY + CNI, None),
        (
            RASPBERRY.replace("/upper/data", "/run/upper") + RUN,
            "/ is an overlay that writes to /run/upper, and /run is a tmpfs",
        ),
        (RASPBERRY.replace("/upper/data", "/media/rw/upper") + DISK, None),
        (ROOT + OVERLAY.replace("/run/o\\040v/upper", "/var/upper"), None),  # what it covers is on the disk
        (RASPBERRY + OVERLAY, f"/var is an overlay that writes to /run/o v/upper, and {HIDDEN}"),
        ("1 1 0:1 / / rw - rootfs rootfs rw\n", "/ is a rootfs"),
        (ROOT + "35 22 0:9 / /var/lib/cni/cni-lease rw - tmpfs tmpfs rw\n", None),
        ("", None),
        ("odd\n - \n1 2 3 4 5 - x\n", None),
    ],
)
def test_where_the_marker_would_be_lost(tree: Tree, table: str, why: str | None) -> None:
    (tree.root / "proc/self").mkdir(parents=True)
    (tree.root / "proc/self/mountinfo").write_text(table)
    assert rivals.volatile(tree.node, STATE_DIRECTORY) == why


def test_a_tree_without_mounts_tells_nothing(tree: Tree) -> None:
    assert rivals.volatile(tree.node, STATE_DIRECTORY) is None
