"""README and the pages: short, for somebody, linked, and with the facts of the program."""

import json
import re
from pathlib import Path

import pytest
import yaml
from cni_config import conflist
from conftest import GOLDEN, TOP, Tree
from programs import command

from cni_lease_reset.commands import history
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges import lock

README = TOP / "README.md"
DOCS = sorted((TOP / "docs").glob("*.md"))
# A run writes these, and they say which one.
OF_A_RUN = {"PERFORMANCE.md": "make bench", "RELIABILITY.md": "make fault-test", "VM-RESULTS.md": "make vm-test"}
LINKING = [README, *DOCS, TOP / "CONTRIBUTING.md", TOP / "SECURITY.md"]

Link = tuple[Path, str, str]  # the page, the path in the link, its anchor


def prose(page: Path) -> str:
    """A page without its code."""
    without_blocks = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^ {4}.*$", "", without_blocks, flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What its headings are called in links: GitHub's rule."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> list[Link]:
    """Those that stay in the checkout."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    split = (target.partition("#") for target in targets if "://" not in target)
    return [(page, path, anchor) for path, _, anchor in split]


def text(page: Path) -> str:
    return " ".join(page.read_text().split())


def test_a_newcomer_reads_the_readme_to_the_end() -> None:
    assert len(README.read_text().splitlines()) < 160


def test_the_readme_has_its_parts_in_the_order_in_which_a_newcomer_asks() -> None:
    assert re.findall(r"^## (.*)$", README.read_text(), re.MULTILINE) == [
        "Try it",
        "Install",
        "What it decides",
        "A node that is out of addresses now",
        "Reading the journal",
        "Compared with",
        "How it is proven",
        "License",
    ]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_says_first_for_whom_it_is(page: Path) -> None:
    title, first, *_ = page.read_text().split("\n\n")
    assert re.fullmatch(r"# .+", title)
    assert first.startswith("This page is for whoever ")
    if page.name in OF_A_RUN:
        assert f"`{OF_A_RUN[page.name]}" in page.read_text()[:400]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    for _, path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(TOP), path
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_each_page_is_found_from_the_readme() -> None:
    found, new = set[Path](), {README}
    while new:
        found |= new
        told = {(page.parent / path).resolve() for each in new if each.suffix == ".md" for page, path, _ in links(each)}
        new = {page for page in told - found if page.is_file()}
    assert set(DOCS) <= found


def states(page: Path) -> dict[str, bool]:
    """Whether a system is served, by its name and version, as a table tells it."""
    rows = re.findall(r"^\| ([^|]+) \| ((?:not )?served|tried)[^|]* \|", page.read_text(), re.MULTILINE)
    name = re.compile(r"\b(?:Debian|Ubuntu|Raspberry Pi OS|Fedora|EL|SLES|SLE? Micro)(?: \d[\d.]*)?")
    return {system: state != "not served" for systems, state in rows for system in name.findall(systems)}


def test_the_readme_and_its_page_tell_the_same_of_each_system() -> None:
    page = states(TOP / "docs/installing.md")
    assert len(page) > 10
    for system, served in states(README).items():
        assert {state for name, state in page.items() if name.startswith(system)} == {served}, system


def test_the_settings_and_their_defaults_are_the_programs() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|$", (TOP / "docs/operating.md").read_text(), re.MULTILINE)
    told = {name: yaml.safe_load(value) for name, value in rows}
    defaults = Config()._asdict()
    assert told == {name: list(each) if isinstance(each, tuple) else each for name, each in defaults.items()}


def test_a_hanging_disk_and_our_own_waits_are_as_the_unit_and_the_code_have_them() -> None:
    unit = (TOP / "packaging/systemd/cni-lease-reset.service").read_text()
    start, stop = (int(re.findall(rf"^Timeout{name}Sec=(\d+)s$", unit, re.MULTILINE)[0]) for name in ("Start", "Stop"))
    ours = lock.OURS + 2 * lock.SYSTEMD + lock.WHO_LIVES
    operating = text(TOP / "docs/operating.md")
    for page in (operating, text(README)):
        assert f"{start + 2 * stop} s" in page
        assert f"and {2 * start + 4 * stop} s at worst" in page
    assert f"two commands of {start} s, and four times the {stop} s" in operating
    assert f"`boot` waits {ours:g} s at most" in operating
    assert f"`shutdown` {lock.SHUTDOWN:g} s" in operating


def names(document: object) -> set[str]:
    """Every name in a JSON document."""
    if isinstance(document, dict):
        return set(document).union(*(names(each) for each in document.values()))
    return set().union(*(names(each) for each in document)) if isinstance(document, list) else set()


def test_each_name_in_what_programs_get_is_on_the_page(tree: Tree) -> None:
    tree.mark("running")
    conflist(tree, {"type": "host-local", "ranges": [[{"subnet": "10.52.0.0/24"}]]})
    tree.lease("10.52.0.2")
    tree.lease("10.60.0.1", network="macvlan-a")
    assert command(tree.node, "boot").returncode == 0
    tree.lease("10.52.0.3")
    written = names(json.loads(command(tree.node, "status", "--json").stdout))
    assert {"range_set", "not_configured", "verdict_reason", "since", "family"} <= written
    written |= names(json.loads(command(tree.node, "history", "--json").stdout)) | {*history.Boot._fields}
    told = set(re.findall(r"`(\w+)`", (TOP / "docs/operating.md").read_text()))
    assert written <= told


def test_the_metrics_go_where_the_unit_writes_them() -> None:
    unit = (TOP / "packaging/systemd/cni-lease-reset-metrics.service").read_text()
    [file] = re.findall(r"--metrics=(\S+)", unit)
    page = (TOP / "docs/monitoring.md").read_text()
    assert f"| RPM | `{file}` |" in page
    [other] = re.findall(r"^\| \.deb \| `(.*)/[^/]*` \|$", page, re.MULTILINE)
    assert other in re.findall(r"^ReadWritePaths=(.*)$", unit, re.MULTILINE)[0]


def test_the_alerts_are_those_that_are_shipped() -> None:
    shipped = re.findall(r"- alert: (\w+)", (TOP / "packaging/prometheus/alerts.yaml").read_text())
    assert shipped
    told = re.findall(r"^\| `(Cni\w+)` \|", (TOP / "docs/monitoring.md").read_text(), re.MULTILINE)
    assert told == shipped


def test_the_example_of_cloud_init_is_one() -> None:
    [snippet] = re.findall(
        r"^```yaml\n(#cloud-config\n.*?)^```$", (TOP / "docs/installing.md").read_text(), re.M | re.S
    )
    configuration = yaml.safe_load(snippet)
    assert set(configuration) == {"package_update", "packages", "runcmd"}
    assert configuration["package_update"] is True
    assert all(isinstance(each, str) for each in configuration["runcmd"])


def test_what_recover_keeps_is_explained() -> None:
    """Each reason of the golden output has its row."""
    page = (TOP / "docs/recover.md").read_text()
    rows = re.findall(r"^\| ([^|]*) \|", page, re.MULTILINE)
    reasons = re.findall(r"^ +\d+ kept, ([^,:\n]*)", (GOLDEN / "recover.txt").read_text(), re.MULTILINE)
    assert reasons
    assert set(reasons) <= {row.partition(",")[0] for row in rows}
