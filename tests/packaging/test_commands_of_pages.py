"""Every command in README, CONTRIBUTING and docs/: run here, or by a test that is named, or listed with the reason why it cannot be.

A command is a line of a ``sh`` block, a line with a ``$`` prompt in another one, an entry of cloud-init's ``runcmd``, or
what stands between backquotes and begins with the name of a program.
"""

import argparse
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
import yaml
from conftest import NEXT, OTHER, THIS, TOP, HostLocal, Kept, Systemd, Tree, boot

from cni_lease_reset import service
from cni_lease_reset.arguments import parser
from cni_lease_reset.core.errors import UsageError
from cni_lease_reset.edges.journald import serialise

READ: Final = (TOP / "README.md", TOP / "CONTRIBUTING.md", *TOP.glob("docs/*.md"))
REMOTE: Final = next(p for p in ("/usr/lib/systemd", "/lib/systemd") if Path(p, "systemd-journal-remote").exists())
PAGES: Final = {str(page.relative_to(TOP)): page.read_text() for page in READ}
PROGRAMS: Final = (
    *(
        "apt",
        "apt-get",
        "cni-lease-reset",
        "crictl",
        "curl",
        "dnf",
        "dpkg",
        "journalctl",
        "kubectl",
        "make",
        "man",
        "ps",
    ),
    *("reboot", "rm", "rpm", "rpmbuild", "systemctl", "transactional-update", "zypper"),
)

ON_DEBIAN: Final = "tests/packaging/deb_on_a_node.py"
# Run by a test: which, and what it has in it.
ELSEWHERE: Final = {
    "apt install ./cni-lease-reset_*_all.deb": (ON_DEBIAN, 'self.apt("install"'),
    "apt install ./dist/*.deb": (ON_DEBIAN, 'self.apt("install"'),
    "apt remove cni-lease-reset": (ON_DEBIAN, 'node.apt("remove"'),
    "apt purge cni-lease-reset": (ON_DEBIAN, 'node.apt("purge"'),
    "apt-get install --yes /root/cni-lease-reset.deb": (ON_DEBIAN, "apt-get --yes"),
    "rpmbuild --rebuild cni-lease-reset-*.src.rpm": ("tests/packaging/test_rpm.py", 'RPM / "build"'),
    "rm /var/lib/cni/cni-lease-reset/marker": (
        "tests/packaging/test_commands_of_pages.py",
        "def test_a_marker_that_was_removed_by_hand",
    ),
    "man cni-lease-reset": ("tests/test_man.py", '"man/cni-lease-reset.8"'),
    "man cni-lease-reset.yaml": ("tests/test_man.py", '"man/cni-lease-reset.yaml.5"'),
}

# Run by nobody, and why.
A_FAMILY: Final = "needs a system of that family, and there is none here; test_rpm.py reads the spec with its macros"
A_CLUSTER: Final = "needs a cluster; test_rollout.py holds the objects against their schemas and runs the script"
AN_ADDRESS: Final = "has an address that is the reader's"
NOWHERE: Final = {
    "crictl rmp": "is containerd's own, and its argument a sandbox of the reader's",
    "curl --fail --silent --show-error --output /root/cni-lease-reset.deb"
    " https://PACKAGES/cni-lease-reset_VERSION_all.deb": AN_ADDRESS,
    "dnf install ./cni-lease-reset-*.noarch.rpm": A_FAMILY,
    "dnf install --assumeyes": AN_ADDRESS,
    "dnf install epel-release": A_FAMILY,
    "dnf remove cni-lease-reset": A_FAMILY,
    "dnf upgrade": A_FAMILY,
    "dnf upgrade ./cni-lease-reset-*.noarch.rpm": A_FAMILY,
    "kubectl apply -f cloudinit.yaml": "needs a Harvester; test_harvester.py holds the file against the keys that it knows",
    "kubectl apply -f monitoring.yaml": "needs a cluster with Rancher's monitoring",
    "kubectl apply -f cni-lease-reset-VERSION-rollout.yaml": A_CLUSTER,
    "kubectl delete -f cni-lease-reset-VERSION-rollout.yaml": A_CLUSTER,
    "kubectl -n cattle-system get plans,jobs -l app.kubernetes.io/name=cni-lease-reset": A_CLUSTER,
    "kubectl -n cattle-system get jobs -l upgrade.cattle.io/plan=cni-lease-reset": A_CLUSTER,
    "kubectl -n cattle-system logs -l upgrade.cattle.io/plan=cni-lease-reset --tail=1": A_CLUSTER,
    "rm -f /system/oem/99_cni_reset.yaml": "is for the image of a Harvester",
    "rm -rf": "is what others do",
    "rm -rf /var/lib/cni/": "is what others do",
    "transactional-update pkg install --allow-unsigned-rpm ./cni-lease-reset-*.noarch.rpm": A_FAMILY,
    "transactional-update pkg remove cni-lease-reset": A_FAMILY,
    "zypper install --allow-unsigned-rpm ./cni-lease-reset-*.noarch.rpm": A_FAMILY,
    "zypper remove cni-lease-reset": A_FAMILY,
    "zypper update": A_FAMILY,
}

UNITS: Final = {path.name for path in (TOP / "packaging/systemd").iterdir()}
# Verbs of systemctl with a unit, and those without.
OF_UNITS: Final = {"status", "start", "stop", "restart", "enable", "disable", "mask", "edit"}
OF_THE_MACHINE: Final = {"reboot", "poweroff"}

# What stands for a word of the reader's, and with what it is tried.
RESET: Final = "4-20261123T061201Z-6b1d2c3e"
STANDS_FOR: Final = {"RESET": RESET, "--metrics=FILE": "--metrics=/srv/our.prom"}


def commands(text: str) -> Iterator[str]:
    """The commands of a page."""
    block = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for kind, code in block.findall(text):
        if kind == "sh":
            lines = code.replace("\\\n", " ").splitlines()
            yield from (line for line in lines if line and not line.startswith("#"))
        elif code.startswith("#cloud-config\n"):
            yield from yaml.safe_load(code)["runcmd"]
        else:
            yield from prompted(code.splitlines())
    rest = block.sub("", text)
    yield from prompted(line.strip() for line in re.findall(r"^ {4}.*$", rest, re.MULTILINE))
    prose = re.sub(r"^ {4}.*$", "", rest, flags=re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", prose):
        first, *others = span.split()
        if first in PROGRAMS and others:
            yield " ".join(span.split())
        elif first in verbs() and others and all(word.startswith("-") for word in others):
            yield " ".join(["cni-lease-reset", *span.split()])


def prompted(lines: Iterable[str]) -> Iterator[str]:
    """Those after a prompt; a line that only looks like a command should have one, or stand in a ``sh`` block."""
    for line in lines:
        if line.startswith("$ "):
            yield line[2:]
        else:
            assert line.split(" ")[0] not in PROGRAMS, f"a command outside of a sh block: {line}"


def verbs() -> set[str]:
    [of] = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return set(of.choices)


def told(pages: Mapping[str, str]) -> dict[str, str]:
    """Each command of all pages, once, with a page that has it."""
    found = {command: page for page, text in pages.items() for line in commands(text) for command in line.split(" && ")}
    return {" ".join(command.split()): page for command, page in found.items()}


def problem(command: str) -> str | None:
    """Say why a command is not proven; ``None`` if it is."""
    if command in ELSEWHERE or command in NOWHERE:
        return None
    match shlex.split(command):
        case ["cni-lease-reset", *words]:
            return of_ours(words)
        case ["systemctl", *words]:
            return of_systemctl(words)
        case ["make", *words]:
            return of_make(words)
        case ["journalctl" | "ps", *_]:
            return None  # each of them is run below
        case _:
            return "neither run nor in a list of this test"


def of_ours(words: list[str]) -> str | None:
    try:
        parser().parse_args([STANDS_FOR.get(word, word) for word in words])
    except UsageError as error:
        return str(error)
    return None


def of_systemctl(words: list[str]) -> str | None:
    verb, *units = [word for word in words if word != "--now"]
    if verb in OF_THE_MACHINE:
        return f"systemctl {verb} takes no unit" if units else None
    if verb not in OF_UNITS:
        return f"no verb of systemctl that this test knows: {verb}"
    named = {unit if "." in unit else f"{unit}.service" for unit in units}
    return None if named and named <= UNITS else f"no unit of ours: {units}"


def of_make(words: list[str]) -> str | None:
    makefile = (TOP / "Makefile").read_text()
    for word in words:
        name, is_variable, _ = word.partition("=")
        known = f"$({name})" in makefile if is_variable else re.search(rf"^{name}:", makefile, re.MULTILINE)
        if not known:
            return f"no target or variable of the Makefile: {name}"
    return None


def stale(pages: Mapping[str, str]) -> set[str]:
    """Entries of the lists that no page has."""
    return (set(ELSEWHERE) | set(NOWHERE)) - set(told(pages))


@pytest.mark.parametrize("command", told(PAGES))
def test_a_command_is_proven_or_listed(command: str) -> None:
    assert problem(command) is None


def test_no_list_has_what_no_page_has() -> None:
    assert not stale(PAGES)
    assert not set(ELSEWHERE) & set(NOWHERE)


@pytest.mark.parametrize("command", ELSEWHERE)
def test_the_test_that_is_named_runs_it(command: str) -> None:
    test, has = ELSEWHERE[command]
    assert has in (TOP / test).read_text()


@pytest.mark.parametrize(
    "text",
    [
        "```sh\nmake love\n```\n",
        "```sh\nmake demo && frobnicate --all\n```\n",
        "```sh\nmake vm-test SPEED=11\n```\n",
        "```\n$ cni-lease-reset bot\n```\n",
        "    $ systemctl start cni-lease-rest\n",
        "Say `systemctl edit cni-lease-reset-metric.service`, or do not.\n",
        "Then `recover --crowd` helps.\n",
        "`cni-lease-reset status --metrics=relative.prom`",
        "```yaml\n#cloud-config\nruncmd:\n  - dnf install something\n```\n",
    ],
)
def test_a_new_command_that_nobody_proves_is_found(text: str) -> None:
    [found] = [command for command in told({"new.md": text}) if problem(command)]
    assert found


def test_a_command_that_left_the_pages_is_found() -> None:
    without = {name: text.replace("crictl rmp", "a tool") for name, text in PAGES.items()}
    assert stale(without) == {"crictl rmp"}


def test_a_command_that_hides_in_an_example_is_found() -> None:
    with pytest.raises(AssertionError, match="outside of a sh block: make demo"):
        told({"new.md": "Like this:\n\n    make demo\n"})


OURS: Final = [command for command in told(PAGES) if command.startswith("cni-lease-reset ")]


@pytest.mark.parametrize("command", OURS)
def test_a_command_of_ours_does_its_work_on_a_node(tree: Tree, pods: HostLocal, command: str) -> None:
    """With somebody at the terminal who says yes."""
    tree.mark("running")
    folder = tree.state / "set-aside" / RESET / "k8s-pod-network"
    folder.mkdir(parents=True)
    (folder / "10.52.0.200").write_text("of a pod that is gone")
    tree.put("srv/our.prom", "")
    words = [STANDS_FOR.get(word, word) for word in shlex.split(command)[1:]]
    ours, theirs = pty.openpty()
    os.write(ours, b"y\n")
    call = [sys.executable, "-m", "cni_lease_reset", "--root", str(tree.root), *words]
    done = subprocess.run(call, stdin=theirs, text=True, capture_output=True, check=False)
    os.close(ours)
    os.close(theirs)
    something_to_see_to = 3 if "--check" in words else 0
    assert done.returncode == something_to_see_to, done.stderr


JOURNAL: Final = [command for command in told(PAGES) if command.startswith("journalctl ")]


@pytest.mark.parametrize("command", JOURNAL)
def test_the_journal_is_read_like_this(tree: Tree, journal: Kept, command: str) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    boot(tree, journal)
    trusted = f"__REALTIME_TIMESTAMP=1795200000000000\n__MONOTONIC_TIMESTAMP=9000000\n_BOOT_ID={NEXT.replace('-', '')}\n_UID=0\n"
    folder = tree.root / "journal"
    folder.mkdir()
    entries = b"".join(trusted.encode() + serialise(entry) + b"\n" for entry in journal.entries)
    remote = [f"{REMOTE}/systemd-journal-remote", f"--output={folder}/system.journal", "-"]
    subprocess.run(remote, input=entries, capture_output=True, check=True)
    call = [*shlex.split(command), f"--directory={folder}", "--no-pager"]
    said = subprocess.run(call, text=True, capture_output=True, check=True).stdout
    assert "Unclean shutdown: 1 lease set aside as 1-" in said


def test_what_hangs_is_looked_for_like_this() -> None:
    [command] = [command for command in told(PAGES) if command.startswith("ps ")]
    said = subprocess.run(shlex.split(command), text=True, capture_output=True, check=True).stdout
    assert said.split()[:3] == ["PID", "STAT", "COMMAND"]


def test_a_marker_that_was_removed_by_hand_lets_the_next_boot_clear_once(tree: Tree, journal: Kept) -> None:
    tree.next_kernel(OTHER)
    boot(tree, journal)
    tree.lease("10.52.0.2")
    [line] = [command for command in told(PAGES) if command.endswith("/marker")]
    program, path = shlex.split(line)
    subprocess.run([program, f"{tree.root}{path}"], check=True)
    service.shutdown(tree.node, Systemd(), journal)
    tree.next_kernel(THIS)
    assert [boot(tree, journal).result, journal.verdicts[-1]["CNI_VERDICT"]] == ["cleared", "unknown"]
    assert tree.set_aside() == {"10.52.0.2"}
