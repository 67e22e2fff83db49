"""docs/architecture.md against the package: its picture names each module, and whatever it names is there."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PACKAGE = TOP / "cni_lease_reset"
PAGE = (TOP / "docs/architecture.md").read_text()
ROOMS = ("core", "edges", "commands")


def modules(folder: str) -> set[str]:
    return {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}


def in_the_picture(box: str) -> set[str]:
    """The modules of a box: the labels inside it are lists of them."""
    inside = re.search(rf"^    subgraph {box}\[.*\n((?: {{8}}.*\n)*)    end$", PAGE, re.MULTILINE)
    assert inside is not None
    return {name for label in re.findall(r'"(.*)"', inside[1]) for name in label.split(", ")}


@pytest.mark.parametrize(("box", "folder"), [("top", "."), *((room, room) for room in ROOMS)])
def test_the_picture_names_each_module_in_its_room(box: str, folder: str) -> None:
    assert in_the_picture(box) == modules(folder)


@pytest.mark.parametrize("room", ROOMS)
def test_the_paragraph_of_a_room_names_modules_that_lie_there(room: str) -> None:
    paragraph = re.search(rf"^\*\*`{room}/`\*\*(.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert paragraph is not None
    named = set(re.findall(r"`([a-z_]+)`", paragraph[1]))
    assert named
    assert named <= modules(room)


def test_the_files_and_functions_that_it_names_exist() -> None:
    for path in re.findall(rf"`((?:{'|'.join(ROOMS)})/\w+)`", PAGE):
        assert (PACKAGE / f"{path}.py").exists(), path
    sources = {path.stem: path.read_text() for path in PACKAGE.rglob("*.py") if path.stem != "__init__"}
    functions = re.findall(r"`(\w+)\.(?:\w+\.)?(\w+)\(\)`", PAGE)  # module.function(), module.Class.method()
    assert len(functions) > 20
    for module, name in functions:
        assert re.search(rf"\b(?:def|class) {name}\b", sources[module]), f"{module}.{name}"
