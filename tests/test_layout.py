"""The rooms and the import rule, what a boot loads, and what is needed at run time."""

import ast
import graphlib
import re
import subprocess
import sys

import pytest
from conftest import TOP, Tree

# Imports point downwards only, cli → service | commands → edges → core: the picture of docs/architecture.md.
BELOW = {
    "__main__": {"cli"},
    "cli": {"arguments", "service", "commands", "edges", "core"},
    "arguments": {"core"},
    "service": {"edges", "core"},
    "commands": {"edges", "core"},
    "edges": {"core"},
    "core": set(),
}


def modules() -> list[str]:
    """Name all modules below the package, a room before its modules' names."""
    package = TOP / "cni_lease_reset"
    found = (path.relative_to(package).with_suffix("") for path in package.rglob("*.py"))
    return sorted(".".join(path.parts) for path in found if path.name != "__init__")


def room(module: str) -> str:
    """Where a module lies; one on top is a room of its own."""
    return module.partition(".")[0]


def imported(module: str) -> tuple[set[str], set[str]]:
    """Return our own modules and the foreign ones that a module imports."""
    names = set(modules())
    path = module.split(".")
    ours: set[str] = set()
    foreign: set[str] = set()
    for node in ast.walk(ast.parse((TOP / "cni_lease_reset" / f"{'/'.join(path)}.py").read_text())):
        if isinstance(node, ast.Import):
            foreign |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            foreign.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            whence = path[: -node.level] + (node.module.split(".") if node.module else [])
            candidates = {".".join([*whence, alias.name]) for alias in node.names}
            ours |= (candidates & names) or ({".".join(whence)} & names)
    return ours, foreign


@pytest.mark.parametrize("module", modules())
def test_imports_point_downwards(module: str) -> None:
    assert room(module) in BELOW
    assert {room(each) for each in imported(module)[0]} <= BELOW[room(module)] | {room(module)}


def test_within_a_room_no_modules_import_each_other() -> None:
    graph = {module: imported(module)[0] for module in modules()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("module", [each for each in modules() if room(each) == "core"])
def test_the_core_knows_no_os_and_no_clock(module: str) -> None:
    assert imported(module)[1] <= {"collections", "enum", "types", "typing"}


def test_pystemd_has_one_module_and_fsync_another() -> None:
    assert [m for m in modules() if "pystemd" in imported(m)[1]] == ["edges.systemd"]
    sources = {m: (TOP / f"cni_lease_reset/{m.replace('.', '/')}.py").read_text() for m in modules()}
    assert [m for m, source in sources.items() if "fsync(" in source] == ["edges.durable"]


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
    cli service core edges
    core.errors core.events core.findings core.model core.outcome core.plan core.verdict
    edges.config edges.durable edges.journald edges.leases edges.lock edges.marker edges.node edges.record
    edges.systemd
"""


def test_a_clean_boot_imports_these_modules_and_no_others(tree: Tree) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    tree.config((TOP / "packaging/systemd/config.yaml").read_text())
    code = (
        "import sys; before = set(sys.modules)\n"
        f"sys.path.insert(0, {str(TOP)!r})\n"
        "from cni_lease_reset import cli\nfrom cni_lease_reset.edges import node\n"
        f"cli.Node = lambda: node.Node({str(tree.root)!r})\n"
        "cli.main(['boot'])\n"
        "print(*set(sys.modules) - before)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    assert "Clean shutdown: nothing to set aside" in done.stderr
    ours = {"cni_lease_reset", *(f"cni_lease_reset.{name}" for name in OF_OURS.split())}
    assert set(done.stdout.split()) - {*OF_PYTHON.split()} == ours


def test_there_are_two_dependencies_at_run_time() -> None:
    import tomllib

    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    assert [re.split(r"[<>=]", each)[0] for each in project["dependencies"]] == ["pystemd", "PyYAML"]


MOST_LINES, MOST_OF_A_FUNCTION = 250, 40
ALL_LINES, LINES_THAT_BOOT = 4000, 2800


def test_the_program_can_be_read_in_one_sitting() -> None:
    sources = {m: (TOP / f"cni_lease_reset/{m.replace('.', '/')}.py").read_text() for m in modules()}
    assert {m: n for m, source in sources.items() if (n := source.count("\n")) > MOST_LINES} == {}
    long = {
        f"{module}.{node.name}": lines
        for module, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_OF_A_FUNCTION
    }
    assert long == {}
    everything = (TOP / "cni_lease_reset").rglob("*.py")  # what only names a room, too
    assert sum(path.read_text().count("\n") for path in everything) < ALL_LINES
    sizes = {module: source.count("\n") for module, source in sources.items()}
    boots = {"cli", "service", "edges", "core"}
    assert sum(size for module, size in sizes.items() if room(module) in boots) < LINES_THAT_BOOT
