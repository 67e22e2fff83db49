"""What the tests are given: a node tree in a temporary directory, the real plugin, a systemd, a journal."""

import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

import hypothesis
import pytest
from tree import OTHER, SANDBOX, THIS, HostLocal, Tree

from cni_lease_reset.journald import Entry, Journal
from cni_lease_reset.systemd import Answer

__all__ = ["OTHER", "SANDBOX", "THIS", "HostLocal", "Kept", "Systemd", "Tree", "tool"]  # as the tests know them

TOP = Path(__file__).parent.parent

# A loaded machine is no fault of ours.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def tool(name: str) -> str:
    """The path of a tool that not every distribution has; without it the test is skipped."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:{TOP}/.cache")  # where tools/system-packages unpacks promtool
    return path or pytest.skip(f"{name} is not to be had here")


# Where every tool can be had nothing is skipped but these tests, by name: a set-up that lost one must not pass.
COMPLETE = ("debian 12", "debian 13")
MAY_BE_SKIPPED: frozenset[str] = frozenset()


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    release = platform.freedesktop_os_release()
    if reporter is None or f"{release['ID']} {release.get('VERSION_ID')}" not in COMPLETE:
        return
    skipped = {report.nodeid for report in reporter.stats.get("skipped", ())} - MAY_BE_SKIPPED
    if skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"\nSkipped, and may not be on {release['PRETTY_NAME']}: {', '.join(sorted(skipped))}")


class Systemd:
    """A systemd that answers as told; the real one has no place below a directory."""

    def __init__(
        self, states: dict[str, str] | None = None, *, down: bool | None = True, remark: str | None = None
    ) -> None:
        self.states, self.down, self.remark = {} if states is None else states, down, remark

    def unit_states(self, units: Sequence[str]) -> Answer[dict[str, str]]:
        if self.down is None:
            return Answer(None, self.remark)
        return Answer({unit: self.states.get(unit, "inactive") for unit in units}, self.remark)

    def going_down(self) -> Answer[bool]:
        return Answer(self.down, self.remark)


class Kept(Journal):
    """A journal that keeps its entries."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def send(self, entry: Entry) -> None:
        self.entries.append(entry)

    @property
    def verdicts(self) -> list[dict[str, str]]:
        return [dict(entry.fields) for entry in self.entries if "CNI_VERDICT" in dict(entry.fields)]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def journal() -> Kept:
    return Kept()


@pytest.fixture
def host_local(tree: Tree) -> HostLocal:
    return HostLocal(tree)
