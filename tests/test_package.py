"""What must agree: unit and command, events and catalog, modules and the import rule."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import THIS, Systemd, Tree

from cni_lease_reset import cli
from cni_lease_reset.events import MessageId
from cni_lease_reset.node import Node

TOP = Path(__file__).parent.parent
UNIT = TOP / "packaging/systemd/cni-lease-reset.service"
CATALOG = TOP / "packaging/systemd/cni-lease-reset.catalog"
# Imports point downwards only: each module may import those of the lines below its own.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"arguments"},
    {"transient"},
    {"recovery", "restoration"},
    {"service", "history", "display"},
    {"metrics"},
    {"reports"},
    {"attention"},
    {"events", "exclusive", "guard", "runtime", "setaside"},
    {"shelf"},
    {"sandboxes"},
    {"pools", "mounts", "rivals"},
    {"config", "marker", "leases", "bootfacts", "systemd", "journald"},
    {"outcomes"},
    {"durable", "foreign", "verdict", "plan", "screen"},
    {"node"},
    {"model", "errors"},
    {"__init__"},
)
PURE = ("verdict", "plan", "outcomes", "model")


def imported(module: str) -> tuple[set[str], set[str]]:
    """Return our own modules and the foreign ones that a module imports."""
    ours: set[str] = set()
    foreign: set[str] = set()
    for node in ast.walk(ast.parse((TOP / f"cni_lease_reset/{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            ours |= (
                {node.module} if node.module else {alias.name for alias in node.names if alias.name != "__version__"}
            )
        elif isinstance(node, ast.ImportFrom):
            foreign.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Import):
            foreign |= {alias.name.partition(".")[0] for alias in node.names}
    return ours, foreign


def modules() -> list[str]:
    return sorted(path.stem for path in (TOP / "cni_lease_reset").glob("*.py"))


def test_every_module_has_its_layer() -> None:
    assert set(modules()) == set().union(*LAYERS)


@pytest.mark.parametrize("module", modules())
def test_imports_point_downwards(module: str) -> None:
    level = next(number for number, layer in enumerate(LAYERS) if module in layer)
    below = set().union(*LAYERS[level + 1 :])
    assert imported(module)[0] <= below


@pytest.mark.parametrize("module", PURE)
def test_the_core_knows_no_os_and_no_clock(module: str) -> None:
    assert imported(module)[1] <= {"enum", "typing"}


def test_pystemd_has_one_module_and_fsync_another() -> None:
    assert [m for m in modules() if "pystemd" in imported(m)[1]] == ["systemd"]
    assert [m for m in modules() if "fsync(" in (TOP / f"cni_lease_reset/{m}.py").read_text()] == ["durable"]


# What a clean boot may import beside the bare interpreter's own: each module costs every boot.
OF_PYTHON = """
    _collections _collections_abc _functools _json _operator _socket _sre _stat _typing
    array collections collections.abc contextlib copyreg enum errno fcntl fnmatch functools genericpath itertools
    json json.decoder json.encoder json.scanner keyword math operator os os.path posixpath
    re re._casefix re._compiler re._constants re._parser reprlib select selectors socket stat
    types typing typing.io typing.re warnings
"""
if sys.version_info >= (3, 14):
    OF_PYTHON += " _abc _ast _types abc annotationlib ast io"  # what typing's NamedTuple brings there
OF_OURS = """
    bootfacts cli config durable errors events exclusive guard journald leases marker model node outcomes plan runtime
    service setaside shelf systemd verdict
"""


def test_a_clean_boot_imports_these_modules_and_no_others(tree: Tree) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    tree.config((TOP / "packaging/systemd/config.yaml").read_text())
    code = (
        "import sys; before = set(sys.modules)\n"
        f"sys.path.insert(0, {str(TOP)!r})\n"
        "from cni_lease_reset import cli, node\n"
        f"cli.Node = lambda: node.Node({str(tree.root)!r})\n"
        "cli.main(['boot'])\n"
        "print(*set(sys.modules) - before)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    assert "Clean shutdown: nothing to set aside" in done.stderr
    ours = {"cni_lease_reset", *(f"cni_lease_reset.{name}" for name in OF_OURS.split())}
    assert set(done.stdout.split()) - {*OF_PYTHON.split()} == ours


def test_what_the_unit_runs_means_this_machine(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.mark("clean")
    monkeypatch.setattr(cli, "Node", lambda: tree.node)
    monkeypatch.setattr(cli, "Systemd", lambda: Systemd(down=True))
    assert Node() == Node("/")
    assert cli.main(["boot"]) == 0
    assert cli.main(["shutdown"]) == 0
    assert "state=clean" in tree.marker()
    assert THIS in tree.marker()


def test_every_message_has_a_catalog_entry_and_every_entry_a_message() -> None:
    text = CATALOG.read_text()
    assert re.findall(r"^-- ([0-9a-f]{32})$", text, re.MULTILINE) == list(MessageId)
    assert len(set(MessageId)) == len(MessageId)
    assert text.count("\nSubject: ") == text.count("\nDefined-By: cni-lease-reset\n") == len(MessageId)
    assert all(len(line) <= 76 for line in text.splitlines())


def test_the_unit_calls_verbs_that_exist() -> None:
    from cni_lease_reset.arguments import parser

    calls = re.findall(r"^Exec(?:Start|Stop)=/usr/bin/cni-lease-reset (.*)$", UNIT.read_text(), re.MULTILINE)
    assert calls == ["boot", "shutdown"]
    for call in calls:
        assert parser().parse_args([call]).verb == call


def test_the_unit_is_caged() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=12", str(UNIT)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]


def test_there_are_two_dependencies_at_run_time() -> None:
    import tomllib

    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    assert [re.split(r"[<>=]", each)[0] for each in project["dependencies"]] == ["pystemd", "PyYAML"]
