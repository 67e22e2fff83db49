"""Where the machines' disks lie, and what they have in common. Where no machine can be made, its tests are skipped."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

import pytest
from conftest import NO_LAB, tool

from .node import HERE, Node, install

NewNode: TypeAlias = Callable[[Path], Node]

# What a machine needs of this one.
_TRIAL: Final = """
mount -t cgroup2 cgroup2 /mnt
rmdir "$(mktemp -d /mnt/lab-XXXXXX)"
unshare --pid --fork --cgroup --net --uts --ipc true
"""


def make_image(*arguments: str) -> str:
    """Make what lies below disks, once, and return where it is kept."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _TRIAL]
    tried = subprocess.run(command, text=True, capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"{NO_LAB}: {tried.stderr.strip()}")
    tool("mmdebstrap")
    return subprocess.run([HERE / "image", *arguments], text=True, stdout=subprocess.PIPE, check=True).stdout.strip()


@pytest.fixture(scope="session")
def image() -> str:
    """The root that is below each disk, but of machines that need more."""
    return make_image()


@pytest.fixture(scope="session")
def room(image: str) -> Iterator[Path]:
    """A folder for disks. In memory: the file system of the checkout may be an overlay, which is no place for another."""
    with TemporaryDirectory(prefix="lab", dir="/dev/shm") as folder:
        install(Path(folder) / "product", image)
        yield Path(folder)


@pytest.fixture(scope="session")
def new_node(room: Path, image: str) -> Iterator[NewNode]:
    """Put disks into nodes; of a test that failed one may still be on in the end."""
    nodes: list[Node] = []

    def make(disk: Path) -> Node:
        nodes.append(Node(disk, f"{room / 'product'}:{image}"))
        return nodes[-1]

    yield make
    for node in nodes:
        if node.is_on():
            node.crash()
