"""What else on a node touches our directories: mounts that do not survive a boot, and others that empty them."""

import os
from pathlib import Path

import pytest
from conftest import Tree

from cni_lease_reset.commands import mounts, rivals
from cni_lease_reset.edges.node import STATE_DIRECTORY

NETWORK = "/var/lib/cni/networks/k8s-pod-network"
ROOT = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
VAR = "30 22 0:26 / /var rw shared:5 - tmpfs tmpfs rw,size=65536k\n"
CNI = "31 30 254:3 /cni /var/lib/cni rw shared:6 - ext4 /dev/vda3 rw\n"
RUN = "23 22 0:20 / /run rw shared:2 - tmpfs tmpfs rw,mode=755\n"
OVERLAY = (
    "40 22 0:33 / /var rw shared:9 - overlay overlay rw,lowerdir=/var,upperdir=/run/o\\040v/upper,workdir=/run/w\n"
)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (ROOT, None),
        (ROOT + VAR, "/var is a tmpfs"),
        (ROOT + VAR + CNI, None),  # Harvester: only listed paths persist
        (ROOT + CNI + CNI.replace("ext4", "tmpfs"), "/var/lib/cni is a tmpfs"),
        (ROOT + CNI.replace("ext4", "tmpfs") + CNI, None),  # the last one covers the others
        (ROOT + OVERLAY, None),
        (ROOT + RUN + OVERLAY, "/var is an overlay that writes to a tmpfs"),
        (ROOT.replace("ext4", "overlay"), None),
        ("1 1 0:1 / / rw - rootfs rootfs rw\n", "/ is a rootfs"),
        (ROOT + "35 22 0:9 / /var/lib/cni/cni-lease rw - tmpfs tmpfs rw\n", None),
        ("", None),
        ("odd\n - \n1 2 3 4 5 - x\n", None),
    ],
)
def test_where_the_marker_would_be_lost(tree: Tree, table: str, why: str | None) -> None:
    (tree.root / "proc/self").mkdir(parents=True)
    (tree.root / "proc/self/mountinfo").write_text(table)
    assert mounts.volatile(tree.node, STATE_DIRECTORY) == why


def test_a_tree_without_mounts_tells_nothing(tree: Tree) -> None:
    assert mounts.volatile(tree.node, STATE_DIRECTORY) is None


def test_the_kernels_own_table_is_read_to_its_end() -> None:
    table = Path("/proc/self/mountinfo").read_text()
    assert len(mounts.parse(table)) == len(table.splitlines())


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("R! /var/lib/cni/networks/k8s-pod-network", NETWORK),
        ("R! /var/lib/cni/networks/k8s-*", NETWORK),
        ("R /var/lib/cni/networks", NETWORK),
        ("D! /var/lib/cni/networks 0755 root root", NETWORK),  # podman's own, in Debian
        ('R "/var/lib/cni/"', NETWORK),
        ("r! /var/lib/cni/networks/k8s-pod-network/*", NETWORK),
        ("R! /var/lib/cni/networks/*/*", NETWORK),
        ("R! /var/lib/cni/cni-lease-reset", STATE_DIRECTORY),
        ("r! /var/lib/cni/networks/k8s-pod-network", None),
        ("d /var/lib/cni/networks 0755 root root -", None),
        ("#R! /var/lib/cni/networks", None),
        ("R! /var/lib/cni/networks/other", None),
        ("R! /var/lib/*", NETWORK),
        ("R! /var/*", NETWORK),
        ("r! /var/lib/cni/networks/k8s-pod-network/last_reserved_ip.0", None),
        ("R! var/lib/cni", None),
        ('R! "/var', None),
        ("R!", None),
        ("", None),
        ('"" /var', None),
    ],
)
def test_a_tmpfiles_line_that_empties_is_found(tree: Tree, line: str, path: str | None) -> None:
    folder = tree.root / "usr/lib/tmpfiles.d"
    folder.mkdir(parents=True)
    (folder / "podman.conf").write_text(f"# podman\n{line}\n")
    said = f"/usr/lib/tmpfiles.d/podman.conf:2 empties {path} at boot, so what leaked is not seen"
    assert rivals.find(tree.node, [NETWORK]) == (() if path is None else (said,))


def test_a_file_of_the_same_name_in_etc_takes_its_place(tree: Tree) -> None:
    for directory, text in (("usr/lib", "D! /var/lib/cni/networks\n"), ("etc", "# nothing here\n")):
        (tree.root / directory / "tmpfiles.d").mkdir(parents=True)
        (tree.root / directory / "tmpfiles.d/podman.conf").write_text(text)
    assert rivals.find(tree.node, [NETWORK]) == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("stages:\n  initramfs:\n  - commands:\n    - rm -rf /var/lib/cni/networks/k8s-pod-network\n", True),
        ("stages:\n  initramfs:\n  - commands:\n    - rm -rf /var/lib/cni/networks/*\n", True),
        ("# rm -rf /var/lib/cni/networks/k8s-pod-network\n", False),
        ("name: something else\n", False),
    ],
)
@pytest.mark.parametrize("folder", ["/system/oem", "/oem"])  # the image's own, and an administrator's
def test_harvesters_own_stage_is_found(tree: Tree, folder: str, text: str, found: bool) -> None:
    (tree.root / folder[1:]).mkdir(parents=True)
    (tree.root / folder[1:] / "99_cni_reset.yaml").write_text(text)
    said = f"{folder}/99_cni_reset.yaml empties {NETWORK} at each boot, so what leaked is not seen"
    assert rivals.find(tree.node, [NETWORK]) == ((said,) if found else ())


def test_what_cannot_be_read_empties_nothing(tree: Tree) -> None:
    (tree.root / "etc/tmpfiles.d").mkdir(parents=True)
    os.mkfifo(tree.root / "etc/tmpfiles.d/a.conf")
    (tree.root / "etc/tmpfiles.d/b.conf").write_bytes(b"R! \xff /var\n\x00\n")
    assert rivals.find(tree.node, [NETWORK]) == ()
