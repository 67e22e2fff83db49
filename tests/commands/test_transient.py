"""The transient unit in which ``recover`` works; the real systemd is the virtual machines'."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import HostLocal, Kept, Systemd, Tree

from cni_lease_reset.commands import transient
from cni_lease_reset.core.errors import InputOutputError, RefusedError
from cni_lease_reset.edges.journald import Journal
from cni_lease_reset.edges.systemd import TransientUnit


class Operator(Systemd):
    """A systemd that does with the transient unit what a test tells it; the real one is the virtual machines'."""

    def __init__(self, tree: Tree, journal: Journal, *, killed: bool = False, at_work: bool | None = False) -> None:
        super().__init__({"rke2-server.service": "active"}, down=False)
        self.tree, self.journal, self.killed, self.is_at_work = tree, journal, killed, at_work
        self.unit: TransientUnit | None = None

    def stop(self, units: Sequence[str]) -> None:
        for unit in units:
            self.states[unit] = "inactive"

    def start(self, unit: TransientUnit) -> None:
        self.unit = unit
        units = unit.command[3:]
        with Path(unit.output).open("a", encoding="utf-8") as output:

            def say(line: str) -> None:
                print(line, file=output)

            transient.work_in_unit(self.tree.node, self, self.journal, units, say)
            if not self.killed:
                say(transient.last_words(units, 0))

    def at_work(self, unit: str) -> bool | None:
        assert unit == transient.UNIT
        return self.is_at_work


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transient, "PROGRAM", sys.executable)


@pytest.mark.usefixtures("_installed")
def test_the_work_is_done_in_a_unit_that_starts_the_runtime_again(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    operator = Operator(tree, journal)
    said: list[str] = []
    assert transient.start(tree.node, operator, ("rke2-server.service",), said.append) == 0
    assert len(tree.leases()) == 8
    assert operator.unit is not None
    assert operator.unit.before == ("rke2-server.service", "rke2-agent.service", "k3s.service", "k3s-agent.service")
    assert operator.unit.command == (sys.executable, "recover", "--worker", "rke2-server.service")
    assert operator.unit.afterwards == ("/usr/bin/systemctl", "--no-block", "start", "--", "rke2-server.service")
    assert said[0] == "Stopping rke2-server.service; the pods go on running."
    assert said[-1] == "The start of rke2-server.service is queued; watch it with: systemctl status rke2-server.service"
    assert operator.states["rke2-server.service"] == "inactive"


@pytest.mark.usefixtures("_installed")
def test_where_no_unit_is_up_none_is_started(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    operator = Operator(tree, journal)
    operator.states.clear()
    said: list[str] = []
    assert transient.start(tree.node, operator, (), said.append) == 0
    assert operator.unit is not None
    assert operator.unit.afterwards == ("/usr/bin/true",)
    assert said[-1].startswith("Set aside 20 leases")


@pytest.mark.usefixtures("_installed")
def test_work_that_is_cut_short_is_told(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    with pytest.raises(InputOutputError, match="recover was cut short"):
        transient.start(tree.node, Operator(tree, journal, killed=True), ("rke2-server.service",), lambda _line: None)


@pytest.mark.usefixtures("_installed")
def test_one_recover_at_a_time(tree: Tree, journal: Kept) -> None:
    with pytest.raises(RefusedError, match="another recover is at work"):
        transient.start(tree.node, Operator(tree, journal, at_work=True), (), lambda _line: None)
    with pytest.raises(RefusedError, match="systemd cannot be asked"):
        transient.start(tree.node, Operator(tree, journal, at_work=None), (), lambda _line: None)


def test_without_the_package_there_is_no_unit(tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transient, "PROGRAM", str(tree.root / "none"))
    with pytest.raises(InputOutputError, match="install the package"):
        transient.start(tree.node, Operator(tree, journal), (), lambda _line: None)


def test_who_watches_waits_for_the_end(tree: Tree, journal: Kept, tmp_path: Path) -> None:
    path = tmp_path / "progress"
    path.write_text("one\n")
    said: list[str] = []

    class Slow(Operator):
        def at_work(self, _unit: str) -> bool:
            if said:
                with path.open("a") as file:
                    file.write("two\nexit 75\n")
            return True

    assert transient.follow(str(path), Slow(tree, journal), said.append) == 75
    assert said == ["one", "two"]


@pytest.mark.usefixtures("_installed")
def test_who_stops_watching_is_told_that_it_goes_on(tree: Tree, pods: HostLocal, journal: Kept) -> None:
    said: list[str] = []

    def interrupted(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transient.start(tree.node, Operator(tree, journal), ("rke2-server.service",), interrupted)
    assert said[-1].startswith("recover goes on without you in cni-lease-reset-recover.service")
