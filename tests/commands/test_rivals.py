"""What else on a node empties our directories."""

import os
from pathlib import PurePosixPath

import pytest
from conftest import Tree
from hypothesis import given
from hypothesis import strategies as st

from cni_lease_reset.commands import rivals
from cni_lease_reset.edges.node import STATE_DIRECTORY

NETWORK = "/var/lib/cni/networks/k8s-pod-network"
LEASES = "what leaked is not seen"
MARKER = "the marker is lost and every boot sets all leases aside"
BOTH = f"{LEASES}, the marker is lost and every boot sets all leases aside"


@pytest.mark.parametrize(
    ("line", "path", "lost"),
    [
        ("R! /var/lib/cni/networks/k8s-pod-network", NETWORK, LEASES),
        ("R! /var/lib/cni/networks/k8s-*", NETWORK, LEASES),
        ("R /var/lib/cni/networks", NETWORK, LEASES),
        ("D! /var/lib/cni/networks 0755 root root", NETWORK, LEASES),  # podman's own, in Debian
        ("D! /var/lib/cni", NETWORK, BOTH),
        ("r /var/lib/cni/*/m*", STATE_DIRECTORY, MARKER),
        ("r /var/lib/cni/*/f*", None, ""),
        ('R "/var/lib/cni/"', NETWORK, BOTH),
        ("r! /var/lib/cni/networks/k8s-pod-network/*", NETWORK, LEASES),
        ("R! /var/lib/cni/networks/*/*", NETWORK, LEASES),
        ("r /var/lib/cni/networks/*/10.52.*", NETWORK, LEASES),
        ("r /var/lib/cni/networks/k8s-pod-network/fd00:*", NETWORK, LEASES),
        ("r /var/lib/cni/networks/k8s-pod-network/*.new", None, ""),
        ("R! /var/lib/cni/cni-lease-reset", STATE_DIRECTORY, MARKER),
        ("R! /var/lib/cni/cni-lease-reset/*", STATE_DIRECTORY, MARKER),
        ("r! /var/lib/cni/networks/k8s-pod-network", None, ""),
        ("d /var/lib/cni/networks 0755 root root -", None, ""),
        ("#R! /var/lib/cni/networks", None, ""),
        ("R! /var/lib/cni/networks/other", None, ""),
        ("R! /var/lib/*", NETWORK, BOTH),
        ("R! /var/*", NETWORK, BOTH),
        ("r! /var/lib/cni/networks/k8s-pod-network/last_reserved_ip.0", None, ""),
        ("R! var/lib/cni", None, ""),
        ("R! /run/lib/.", None, ""),
        ("r! /run/lib/..", None, ""),
        ("r! /", None, ""),
        ('R! "/var', None, ""),
        ("R!", None, ""),
        ("", None, ""),
        ('"" /var', None, ""),
    ],
)
def test_a_tmpfiles_line_that_empties_is_found(tree: Tree, line: str, path: str | None, lost: str) -> None:
    folder = tree.root / "usr/lib/tmpfiles.d"
    folder.mkdir(parents=True)
    (folder / "podman.conf").write_text(f"# podman\n{line}\n")
    said = f"/usr/lib/tmpfiles.d/podman.conf:2 empties {path} at boot, so {lost}"
    assert tuple(rivals.find(tree.node, [NETWORK])) == (() if path is None else (said,))


def test_a_file_of_the_same_name_in_etc_takes_its_place(tree: Tree) -> None:
    for directory, text in (("usr/lib", "D! /var/lib/cni/networks\n"), ("etc", "# nothing here\n")):
        (tree.root / directory / "tmpfiles.d").mkdir(parents=True)
        (tree.root / directory / "tmpfiles.d/podman.conf").write_text(text)
    assert tuple(rivals.find(tree.node, [NETWORK])) == ()


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
    assert tuple(rivals.find(tree.node, [NETWORK])) == ((said,) if found else ())


def test_what_cannot_be_read_empties_nothing(tree: Tree) -> None:
    (tree.root / "etc/tmpfiles.d").mkdir(parents=True)
    os.mkfifo(tree.root / "etc/tmpfiles.d/a.conf")
    (tree.root / "etc/tmpfiles.d/b.conf").write_bytes(b"R! \xff /var\n\x00\n")
    assert tuple(rivals.find(tree.node, [NETWORK])) == ()


@given(st.sampled_from("rRD"), st.text(alphabet="./*?[]a0 \t\"'#", max_size=12))
def test_no_line_makes_it_stumble(kind: str, pattern: str) -> None:
    rivals._takes(f"{kind} /{pattern}", PurePosixPath(f"{NETWORK}/10.42.0.2"))
