"""Files that any pod's plugin may have left: nothing outside is read, written, renamed or followed, nothing printed raw."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from conftest import TOP, Kept, Systemd, Tree

from cni_lease_reset import service
from cni_lease_reset.core.model import BootId

from . import report
from .conftest import LONG, Figures
from .tracing import plain

CANARY: Final = "elsewhere-canary"
VERBS: Final = (("boot",), ("status",), ("recover", "--yes"))
NASTY: Final = ("new\nline", "\x1b[31mred\x1b[0m", "\udcff\udcfe", "\u202egnp", "x" * 255, "a b;$(reboot)`id`", "-rf")


class Outside:
    """A directory that is none of our business, and looks like all that we know."""

    def __init__(self, place: Path) -> None:
        self.path = place / CANARY
        for name in ("marker", "marker.new", "boot", "boot.new", "lock", "10.52.0.2", "k8s-pod-network/10.52.0.2"):
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"canary {name}")
        for below in (
            "cni/networks/k8s-pod-network",
            "lib/cni/networks/k8s-pod-network",
            "9-20261123T061201Z-22222222",
        ):
            (self.path / below).mkdir(parents=True)
            (self.path / below / "10.52.0.2").write_text("canary")

    def picture(self) -> dict[str, tuple[int, int, bytes]]:
        """Every file with its inode, its time of change and its content; the directories with their time of change."""
        paths = [self.path, *sorted(self.path.rglob("*"))]
        return {
            str(path): (path.stat().st_ino, path.stat().st_mtime_ns, b"" if path.is_dir() else path.read_bytes())
            for path in paths
        }


Plant = Callable[[Tree, Path], None]


def link(path: str, target: str = ".") -> Plant:
    """A symbolic link to the outside, in the place of whatever is there."""

    def plant(tree: Tree, outside: Path) -> None:
        place = tree.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            place.rename(tree.root / "moved-away")
        place.symlink_to(outside / target)

    return plant


def hard_link(tree: Tree, outside: Path) -> None:
    os.link(outside / "10.52.0.2", tree.network / "10.52.0.40")


def fifo(path: str) -> Plant:
    def plant(tree: Tree, outside: Path) -> None:
        place = tree.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        os.mkfifo(place)

    return plant


def unix_socket(tree: Tree, outside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree.network / "10.52.0.41"))


def device(tree: Tree, outside: Path) -> None:
    os.mknod(tree.network / "10.52.0.42", 0o20666, os.makedev(1, 5))  # /dev/zero: to read it never ends


def directory(path: str) -> Plant:
    def plant(tree: Tree, outside: Path) -> None:
        (tree.root / path).mkdir(parents=True)
        (tree.root / path / "10.52.0.2").write_text("inside")

    return plant


def nasty_names(tree: Tree, outside: Path) -> None:
    for name in NASTY:
        (tree.network / name).write_text("")
        (tree.data / name).mkdir()
        (tree.data / name / "10.52.0.2").write_text("lease")
        (tree.data / name / name).write_text("")


_NETWORK: Final = "var/lib/cni/networks/k8s-pod-network"
_STATE: Final = "var/lib/cni/cni-lease-reset"
PLANTS: Final[dict[str, Plant]] = {
    "var is a link": link("var"),
    "the directory of CNI is a link": link("var/lib/cni", "cni"),
    "the data directory is a link": link("var/lib/cni/networks"),
    "a network is a link": link(_NETWORK, "k8s-pod-network"),
    "another network is a link": link("var/lib/cni/networks/cbr0", "k8s-pod-network"),
    "a lease is a link": link(f"{_NETWORK}/10.52.0.43", "10.52.0.2"),
    "a lock is a link": link(f"{_NETWORK}/lock", "lock"),
    "a lock is a dangling link": link(f"{_NETWORK}/lock", "made-by-us"),
    "the state directory is a link": link(_STATE),
    "the shelf is a link": link(f"{_STATE}/set-aside"),
    "an old reset is a link": link(f"{_STATE}/set-aside/1-20261101T061201Z-22222222", "9-20261123T061201Z-22222222"),
    "an old network's folder is a link": link(f"{_STATE}/set-aside/1-20261101T061201Z-22222222/k8s-pod-network"),
    "the marker is a link": link(f"{_STATE}/marker", "marker"),
    "the temporary name is a link": link(f"{_STATE}/marker.new", "marker.new"),
    "the temporary name is a dangling link": link(f"{_STATE}/marker.new", "made-by-us"),
    "run is a link": link("run"),
    "our directory under run is a link": link("run/cni-lease-reset"),
    "the record is a link": link("run/cni-lease-reset/boot", "boot"),
    "the record's temporary name is a link": link("run/cni-lease-reset/boot.new", "boot.new"),
    "a lease is a hard link": hard_link,
    "a lease is a FIFO": fifo(f"{_NETWORK}/10.52.0.44"),
    "the lock is a FIFO": fifo(f"{_NETWORK}/lock"),
    "the marker is a FIFO": fifo(f"{_STATE}/marker"),
    "the record is a FIFO": fifo("run/cni-lease-reset/boot"),
    "a network is a FIFO": fifo("var/lib/cni/networks/cbr0"),
    "a lease is a socket": unix_socket,
    "a lease is a device that never ends": device,
    "a directory is named like an address": directory(f"{_NETWORK}/10.52.0.45"),
    "the temporary name is a directory": directory(f"{_STATE}/marker.new"),
    "names of all kinds": nasty_names,
}


def printed_raw(text: str) -> str:
    """What should not have been printed: anything but printable characters and the ends of lines."""
    return "".join(c for c in text if not c.isprintable() and c != "\n")


@pytest.mark.parametrize("verb", VERBS if LONG else VERBS[:1], ids=lambda verb: verb[0])
@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS.keys())
def test_nothing_outside_is_touched(plant: Plant, verb: tuple[str, ...], place: Path, figures: Figures) -> None:
    root = place / "n"
    root.mkdir()
    tree = Tree(root)
    tree.mark("running")
    tree.config("networks: ['*']\nkeep_resets: 1\n")
    tree.lease("10.52.0.2", "mine")
    for number in (1, 2):
        (tree.state / f"set-aside/{number}-20261101T061201Z-22222222/k8s-pod-network").mkdir(parents=True)
        (tree.state / f"set-aside/{number}-20261101T061201Z-22222222/k8s-pod-network/10.52.0.9").write_text("old")
    outside = Outside(place)
    plant(tree, outside.path)
    before = outside.picture()
    run = plain(tree, *verb)
    assert outside.picture() == before
    opened = [line for line in run.log if CANARY in line.rpartition(" = ")[2] or "made-by-us" in line]
    assert not opened, "followed"
    assert run.status in (0, 3, 74, 75), run.stderr
    assert "Traceback" not in run.stderr
    assert not printed_raw(run.stderr), run.stderr
    assert "Unexpected" not in run.stderr
    assert verb[0] != "boot" or run.stderr, "something was said"
    figures.add(report.HOSTILE)


def test_a_network_swapped_for_a_link_between_any_two_calls_leads_nowhere(
    place: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    outside = Outside(place)
    before = outside.picture()
    calls = ("open", "stat", "scandir", "listdir", "mkdir", "rename", "unlink", "read", "fstat", "close")
    number = 0
    swapped = True
    while swapped:
        swapped = False
        root = place / str(number)
        root.mkdir()
        tree = Tree(root)
        tree.mark("running")
        tree.lease("10.52.0.2", "mine")
        left = number

        def swap(tree: Tree = tree) -> None:
            nonlocal swapped
            swapped = True
            tree.network.rename(tree.data / "swapped")
            tree.network.symlink_to(outside.path / "k8s-pod-network")

        def watched(real: Callable[..., object], swap: Callable[[], None] = swap) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                nonlocal left
                left -= 1
                if left == -1:
                    swap()
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patched:
            for name in calls:
                patched.setattr(os, name, watched(getattr(os, name)))
            service.boot(tree.node, Systemd(), Kept())
        assert outside.picture() == before, f"swapped before call {number}"
        found = [path.read_text() for path in root.glob("var/lib/cni/**/10.52.0.2") if "canary" not in path.read_text()]
        assert found == ["mine"], f"swapped before call {number}"
        number += 1
    assert number > 40
    figures.add(report.SWAPS, number - 1)


def test_as_many_leases_as_a_network_of_16_bits_can_have(place: Path, long: bool, figures: Figures) -> None:
    most = 65534 if long else 4094  # the short run has a network of 12 bits
    tree = Tree(place)
    tree.mark("running")
    tree.network.mkdir(parents=True)
    for number in range(1, most + 1):
        (tree.network / f"10.52.{number >> 8}.{number & 255}").touch()
    outcome = service.boot(tree.node, Systemd(), Kept())
    assert (outcome.result, outcome.total.cleared, outcome.total.torn) == ("cleared", most, most)
    assert [path.name for path in tree.network.iterdir()] == ["lock"]
    tree.next_kernel(BootId("44444444-4444-4444-8444-444444444444"))
    assert service.boot(tree.node, Systemd(), Kept()).result == "nothing-due"
    assert len(os.listdir(next((tree.state / "set-aside").iterdir()) / "k8s-pod-network")) == most
    figures.add(report.LEASES, most)


PACKAGE = TOP / "cni_lease_reset"


@pytest.mark.parametrize("module", sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")))
def test_what_changes_a_file_goes_through_a_directorys_descriptor(module: str) -> None:
    calls = re.findall(r"os\.(?:rename|unlink|mkdir|rmdir|link|symlink)\(.*", (PACKAGE / module).read_text())
    assert all("dir_fd=" in call for call in calls), calls
