"""Programs that tests run: the command itself, promtool, and whatever must go on meanwhile."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from conftest import TOP, Tree

from cni_lease_reset.edges.node import Node

STAND_IN = str(TOP / "tests/stand_in_systemd.py")


def command(node: Node, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    call = [sys.executable, "-m", "cni_lease_reset", "--root", node.root, *arguments]
    surroundings = {**os.environ, "TZ": "Europe/Berlin", "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(call, env=surroundings, text=True, capture_output=True, check=False)


def as_nobody(tree: Tree, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user without rights; from a copy, for he may not read a checkout below root's home."""
    for parent in (tree.root, *tree.root.parents):  # pytest's own folders are root's alone
        if parent.stat().st_mode & 0o077 == 0:
            parent.chmod(0o755)
    shutil.copytree(TOP / "cni_lease_reset", tree.root / "program/cni_lease_reset")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    call = [*nobody, "/usr/bin/python3", "-m", "cni_lease_reset", "--root", str(tree.root), *arguments]
    surroundings, place = {"PATH": os.environ["PATH"]}, tree.root / "program"
    return subprocess.run(call, env=surroundings, cwd=place, text=True, capture_output=True, check=False)


def normalised(text: str) -> str:
    """What a run wrote, with the same time in every run."""
    text = re.sub(r"\d{8}T\d{6}Z", "20261123T061201Z", text)
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2026-11-23T06:12:01Z", text)


@contextmanager
def running(*command: str) -> Iterator[IO[str]]:
    """Run a program from its first line of output on, yield what it prints then, and end it."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            yield process.stdout
        finally:
            process.terminate()
