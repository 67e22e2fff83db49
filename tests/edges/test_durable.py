"""An error names the file, whichever descriptor the call was given."""

import errno
import os
from pathlib import Path

import pytest
from conftest import THIS, Tree

from cni_lease_reset.core.model import State
from cni_lease_reset.edges import durable, marker


def test_what_cannot_be_read_is_named(tree: Tree) -> None:
    (tree.root / "place/folder").mkdir(parents=True)
    with durable.directory("/place", root=tree.node.root) as place, pytest.raises(IsADirectoryError) as error:
        durable.content(place, "folder", 1)
    assert error.value.filename == "folder"


def test_a_file_on_the_way_is_named_with_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    with pytest.raises(NotADirectoryError) as caught, durable.directory("/var/lib", root=str(tmp_path)):
        pass
    assert caught.value.filename == f"{tmp_path}/var"


def test_a_call_that_knows_only_a_descriptor_fails_with_the_files_name(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.state.mkdir(parents=True)

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match=r"'marker\.new'"):
        marker.record(tree.node, State.RUNNING, THIS)
