"""The command finds packages though it is started with ``-S``, and looks for them only where one is needed."""

import subprocess
from types import SimpleNamespace

import pytest
from conftest import TOP

from cni_lease_reset.edges import packages

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from cni_lease_reset.edges import config
print("site" in sys.modules)
print(config.parse(b"keep_resets: 7\\n").keep_resets)
"""


def test_packages_are_looked_for_where_one_is_needed() -> None:
    command = ["/usr/bin/python3", "-I", "-S", "-c", SCRIPT, str(TOP)]  # as the launcher has it
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n7\n"


@pytest.mark.parametrize(("no_site", "modules", "looked"), [(1, {}, True), (1, {"site": None}, False), (0, {}, False)])
def test_they_are_looked_for_once(
    monkeypatch: pytest.MonkeyPatch, no_site: int, modules: dict[str, None], looked: bool
) -> None:
    path: list[str] = []
    monkeypatch.setattr("site.getsitepackages", lambda: ["/packages"])
    seen = SimpleNamespace(flags=SimpleNamespace(no_site=no_site), modules=modules, path=path)
    monkeypatch.setattr(packages, "sys", seen)
    packages.reach()
    assert path == (["/packages"] if looked else [])
