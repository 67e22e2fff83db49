"""The man pages and the shell completions say what the program does: no verb, option or setting more or less."""

import argparse
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TOP, Kept, Tree, tool

from cni_lease_reset import service
from cni_lease_reset.arguments import parser
from cni_lease_reset.commands import display, metrics, status
from cni_lease_reset.commands.settings import as_text as settings_text
from cni_lease_reset.core import errors
from cni_lease_reset.core.findings import MessageId
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges.systemd import Manager

PROGRAM = TOP / "man/cni-lease-reset.8"
SETTINGS = TOP / "man/cni-lease-reset.yaml.5"
COMPLETION = TOP / "packaging/completion"


def options(of: argparse.ArgumentParser) -> set[str]:
    """The long options of a parser, but for those that are not for people."""
    shown = [action for action in of._actions if action.help is not argparse.SUPPRESS]
    return {option for action in shown for option in action.option_strings if option.startswith("--")}


def verbs() -> dict[str, argparse.ArgumentParser]:
    choices = next(each for each in parser()._actions if isinstance(each, argparse._SubParsersAction)).choices
    return dict(choices)


def section(page: Path, title: str) -> str:
    found = re.search(rf'^\.Sh "?{title}"?\n(.*?)(?=^\.Sh|\Z)', page.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def items(page: Path, title: str, macro: str) -> list[str]:
    """The heads of a section's list, without their macro."""
    return re.findall(rf"^\.It {macro} (.*)$", section(page, title), re.MULTILINE)


@pytest.mark.parametrize("page", [PROGRAM, SETTINGS], ids=lambda page: page.name)
def test_mandoc_has_nothing_to_say(page: Path) -> None:
    done = subprocess.run(["mandoc", "-Tlint", "-Wstyle", page], text=True, capture_output=True, check=False)
    # Which other pages there are is this machine's affair.
    assert [line for line in done.stdout.splitlines() if "referenced manual not found" not in line] == []


@pytest.mark.parametrize("page", [PROGRAM, SETTINGS], ids=lambda page: page.name)
def test_the_pages_fit_into_80_columns(page: Path) -> None:
    text = subprocess.run(["mandoc", "-Tascii", page], text=True, capture_output=True, check=True).stdout
    assert [line for line in re.sub(".\b", "", text).splitlines() if len(line) > 80] == []


def test_the_page_has_each_verb_with_its_options() -> None:
    heads = {
        head.split()[0]: set(re.findall(r"(?:Fl|,) (-[a-z-]+)", head)) for head in items(PROGRAM, "DESCRIPTION", "Cm")
    }
    expected = {verb: {option[1:] for option in options(of) - {"--help"}} for verb, of in verbs().items()}
    assert heads == expected


def test_the_page_has_the_options_before_the_verb() -> None:
    assert {f"-{head.split()[0]}" for head in items(PROGRAM, "DESCRIPTION", "Fl")} == options(parser())


def test_the_page_has_each_exit_status() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    statuses = {each.status for each in classes if issubclass(each, errors.CniLeaseResetError)}
    documented = re.findall(r"^\.It ([0-9]+)$", section(PROGRAM, "EXIT STATUS"), re.MULTILINE)
    assert {int(each) for each in documented} == statuses | {os.EX_OK, 3, 130}


def test_the_page_has_each_field_of_the_journal() -> None:
    source = "".join(path.read_text() for path in (TOP / "cni_lease_reset").rglob("*.py"))
    fields = set(re.findall(r'"(CNI_[A-Z_]+|OBJECT_[A-Z_]+)"', source))
    assert set(items(PROGRAM, "JOURNAL", "Va")) == fields


def test_the_page_has_each_message_id_with_what_the_catalog_says() -> None:
    catalog = (TOP / "packaging/systemd/cni-lease-reset.catalog").read_text()
    subjects = dict(re.findall(r"^-- (\w{32})\nSubject: (.*)$", catalog, re.MULTILINE))
    documented = dict(re.findall(r"^\.It Li (\w{32})\n(.*)\.$", section(PROGRAM, "JOURNAL"), re.MULTILINE))
    assert list(documented) == list(MessageId)
    assert documented == subjects


def test_the_page_has_each_metric(tree: Tree, journal: Kept) -> None:
    service.boot(tree.node, Manager(), journal)
    report = status.gather(tree.node, Manager())
    found = [name for name, _, _ in (*metrics._of_boot(report), *metrics._of_now(report))]
    assert items(PROGRAM, "METRICS", "Va") == [f"cni_lease_reset_{name}" for name in found]


def test_the_page_has_each_part_of_the_json(tree: Tree) -> None:
    document = json.loads(display.as_json(status.gather(tree.node, Manager())))
    assert items(PROGRAM, "JSON", "Va") == list(document)


def test_the_page_has_each_setting_with_its_default() -> None:
    documented = [item.replace(" : No ", ": ") for item in items(SETTINGS, "DESCRIPTION", "Cm") if " : No " in item]
    rendered = settings_text(Config())
    assert documented == [line.removesuffix("  # default") for line in rendered.splitlines()]


Shell = Callable[[str], set[str]]


def bash(line: str) -> set[str]:
    words = line.split(" ")
    script = (
        f"source {COMPLETION}/cni-lease-reset.bash\n"
        f'COMP_WORDS=("$@") COMP_CWORD={len(words) - 1}\n'
        "_cni_lease_reset\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script, "bash", *words], text=True, capture_output=True, check=True)
    return set(done.stdout.split())


def fish(line: str) -> set[str]:
    script = f"source {COMPLETION}/cni-lease-reset.fish; complete --do-complete '{line}'"
    done = subprocess.run([tool("fish"), "--no-config", "-c", script], text=True, capture_output=True, check=True)
    return {offer.split("\t")[0] for offer in done.stdout.splitlines()}


def zsh(line: str) -> set[str]:
    command: list[str | Path] = ["zsh", "-f", TOP / "tests/zsh-offers", COMPLETION, line]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    return set(re.findall(r"offer (\S+)", done.stdout))


@pytest.mark.parametrize("shell", [bash, fish, zsh], ids=lambda shell: shell.__name__)
def test_each_shell_offers_the_verbs_and_their_options(shell: Shell) -> None:
    assert shell("cni-lease-reset b") >= {"boot"}
    assert {word for word in shell("cni-lease-reset ") if word[0] != "-"} == set(verbs())
    assert shell("cni-lease-reset --") == options(parser())
    for verb, of in verbs().items():
        assert {word for word in shell(f"cni-lease-reset {verb} --") if word[:2] == "--"} == options(of), verb


@pytest.mark.parametrize("shell", [bash, fish, zsh], ids=lambda shell: shell.__name__)
def test_each_shell_offers_directories_as_a_root_and_verbs_after_it(shell: Shell) -> None:
    assert {word.strip("/") for word in shell("cni-lease-reset --root /us")} == {"usr"}
    assert shell("cni-lease-reset --root /usr sh") == {"shutdown"}


@pytest.mark.parametrize("text", [TOP / "docs/operating.md", PROGRAM], ids=lambda path: path.name)
def test_nodes_that_share_a_kernel_are_named(text: Path) -> None:
    assert "inside LXC, kind or WSL2 share the boot id of the kernel below them" in text.read_text().replace("\n", " ")
