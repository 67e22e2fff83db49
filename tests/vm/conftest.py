"""One fixture: a node on a throw-away overlay of the cached image."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import Node, running

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def image() -> Path:
    built = subprocess.run([HERE / "image"], check=True, stdout=subprocess.PIPE, text=True)
    return Path(built.stdout.splitlines()[-1])


@pytest.fixture
def node(tmp_path: Path, image: Path) -> Iterator[Node]:
    with running(Node(tmp_path, image)) as machine:
        yield machine
