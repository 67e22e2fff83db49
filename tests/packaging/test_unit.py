"""The units call the program as it is, in their order, and are caged."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import THIS, TOP, Systemd, Tree
from programs import command

from cni_lease_reset import cli
from cni_lease_reset.core.errors import ConfigError
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges import lock
from cni_lease_reset.edges.config import parse
from cni_lease_reset.edges.node import Node

PROGRAM = "/usr/bin/cni-lease-reset"
UNITS = TOP / "packaging/systemd"
UNIT = UNITS / "cni-lease-reset.service"
METRICS = UNITS / "cni-lease-reset-metrics.service"
RECOVER = UNITS / "cni-lease-reset-recover.service"
SHIPPED = sorted([*UNITS.glob("*.service"), *UNITS.glob("*.timer")])


def settings(unit: Path) -> dict[str, list[str]]:
    """What a unit says, by directive."""
    said: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        said.setdefault(name, []).append(value)
    return said


def words(unit: Path, name: str) -> set[str]:
    """The words of all its lines with one directive; "-" before a path means that it need not be there."""
    return {word for value in settings(unit).get(name, []) for word in value.split()}


def measuring() -> list[str]:
    """The arguments of the metrics' unit."""
    (line,) = re.findall(r"^ExecStart=(.*)$", METRICS.read_text(), re.MULTILINE)
    program, *arguments = shlex.split(line)
    assert program == PROGRAM
    return arguments


def test_what_the_unit_runs_means_this_machine(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.mark("clean")
    monkeypatch.setattr(cli, "Node", lambda: tree.node)
    monkeypatch.setattr(cli, "Systemd", lambda: Systemd(down=True))
    assert Node() == Node("/")
    assert cli.main(["boot"]) == 0
    assert cli.main(["shutdown"]) == 0
    assert "state=clean" in tree.marker()
    assert THIS in tree.marker()


def test_the_unit_calls_verbs_that_exist() -> None:
    from cni_lease_reset.arguments import parser

    calls = re.findall(r"^Exec(?:Start|Stop)=/usr/bin/cni-lease-reset (.*)$", UNIT.read_text(), re.MULTILINE)
    assert calls == ["boot", "shutdown"]
    for call in calls:
        assert parser().parse_args([call]).verb == call


def test_what_the_timer_runs_asks_nobody_and_touches_crowded_networks_alone() -> None:
    from cni_lease_reset.arguments import parser

    (call,) = settings(RECOVER)["ExecStart"]
    assert call == f"{PROGRAM} recover --yes --crowded"
    options = parser().parse_args(call.split()[1:])
    assert (options.verb, options.yes, options.crowded, options.dry_run) == ("recover", True, True, False)


def test_the_timer_runs_it_every_hour_and_not_before_kubelet_has_released_what_it_knows() -> None:
    timer = settings(UNITS / "cni-lease-reset-recover.timer")
    assert (timer["OnBootSec"], timer["OnUnitActiveSec"]) == (["15min"], ["1h"])
    assert "Unit" not in timer  # that of its own name


@pytest.mark.parametrize("unit", SHIPPED, ids=lambda unit: unit.name)
def test_only_the_boot_unit_has_the_directory_of_its_record(unit: Path) -> None:
    # Whoever else has it removes it, and with it the record, when he stops.
    own = {name: value for name, value in settings(unit).items() if name.startswith("RuntimeDirectory")}
    kept = {"RuntimeDirectory": ["cni-lease-reset"], "RuntimeDirectoryPreserve": ["yes"]}
    assert own == (kept if unit == UNIT else {})


@pytest.mark.parametrize("unit", SHIPPED, ids=lambda unit: unit.name)
def test_each_unit_names_the_manual_and_what_it_is(unit: Path) -> None:
    said = settings(unit)
    assert said["Documentation"] == ["man:cni-lease-reset(8)"]
    assert len(said["Description"]) == 1


def test_the_boot_unit_is_ordered_before_each_unit_of_the_runtime() -> None:
    assert words(UNIT, "Before") == set(Config().runtime_units)


def test_at_shutdown_recover_ends_before_the_boot_unit_marks_the_end() -> None:
    assert words(RECOVER, "After") == {UNIT.name}
    # It is no part of any boot or shutdown besides, and stops nobody.
    assert not settings(RECOVER).keys() & {"Before", "Wants", "Requires", "BindsTo", "PartOf", "Conflicts", "WantedBy"}


def test_a_refused_recover_is_no_failed_unit() -> None:
    said = settings(RECOVER)
    assert said["SuccessExitStatus"] == ["75"]
    assert said["Type"] == ["oneshot"]
    assert "RemainAfterExit" not in said  # or the timer would start it but once


@pytest.mark.parametrize("unit", [UNIT, RECOVER], ids=lambda unit: unit.name)
def test_nobody_waits_for_a_child_that_cannot_end(unit: Path) -> None:
    assert settings(unit)["KillMode"] == ["process"]


@pytest.mark.parametrize("unit", [UNIT, RECOVER], ids=lambda unit: unit.name)
def test_nobody_waits_for_ever(unit: Path) -> None:
    assert "infinity" not in words(unit, "TimeoutStartSec") | words(unit, "TimeoutStopSec")
    assert settings(unit).keys() >= {"TimeoutStartSec", "TimeoutStopSec"}


def exposure(unit: Path) -> float:
    """What systemd makes of a cage: 0 is the best, 10 the worst."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=100", "--no-pager", str(unit)]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    overall = re.search(r"Overall exposure level for \S+ ([0-9.]+) ", done.stdout.replace(":", ""))
    assert overall is not None, done.stdout[-200:]
    return float(overall[1])


@pytest.mark.parametrize(("unit", "most"), [(UNIT, 1.2), (RECOVER, 3.0)], ids=["boot", "recover"])
def test_the_unit_is_caged(unit: Path, most: float) -> None:
    assert exposure(unit) <= most


def test_recover_has_the_rights_to_look_into_pods_and_no_others() -> None:
    assert words(RECOVER, "CapabilityBoundingSet") == {"CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"}
    assert settings(RECOVER)["SystemCallFilter"] == ["@system-service", "~@privileged @resources", "setns"]
    assert settings(RECOVER)["ProtectSystem"] == ["strict"]
    assert words(RECOVER, "ReadWritePaths") == {"-/var/lib/cni", "-/run/cni-lease-reset"}
    # Each of these would hide what lives from it, and MemoryDenyWriteExecute= takes ctypes from some Pythons.
    blinding = {"RestrictNamespaces", "PrivateNetwork", "PrivateUsers", "MemoryDenyWriteExecute", "User", "PrivatePIDs"}
    assert not settings(RECOVER).keys() & blinding
    assert (settings(RECOVER)["ProtectProc"], settings(RECOVER)["ProcSubset"]) == (["default"], ["all"])


def test_the_cage_of_recover_differs_from_the_boot_units_in_what_it_needs() -> None:
    sets, kept = settings(RECOVER), settings(UNIT)
    cage = {
        name for name in kept if re.match("Protect|Private|Restrict|Lock|NoNew|IPAddress|Device|Keyring|Remove", name)
    }
    needs = {"PrivateNetwork", "RestrictNamespaces"}
    assert {name for name in cage if sets.get(name) != kept[name]} <= needs


@pytest.mark.parametrize("unit", [UNIT, RECOVER, METRICS], ids=lambda unit: unit.name)
def test_no_place_that_a_data_dir_may_have_looks_empty_from_within(unit: Path) -> None:
    """What ProtectHome=yes hides no ReadWritePaths= brings back."""
    assert settings(unit)["ProtectHome"] == ["read-only"]
    assert not settings(unit).keys() & {"InaccessiblePaths", "TemporaryFileSystem", "RootDirectory"}
    hidden = {"/tmp", "/var/tmp", "/dev"}  # by PrivateTmp= and PrivateDevices=
    for place in hidden:
        with pytest.raises(ConfigError):
            parse(f"data_dir: {place}/networks\n".encode())


def test_timers_are_for_their_operator_to_enable() -> None:
    preset = (TOP / "packaging/rpm/cni-lease-reset.preset").read_text()
    listed = re.findall(r"^(enable|disable) (\S+)$", preset, re.MULTILINE)
    timers = [("disable", each.name) for each in SHIPPED if each.suffix == ".timer"]
    assert sorted(listed) == [*timers, ("enable", UNIT.name)]


def test_the_program_is_where_the_unit_looks_for_it() -> None:
    assert f"ExecStart={PROGRAM} boot\n" in UNIT.read_text()


def test_boot_may_write_beside_the_leases_and_nowhere_else() -> None:
    assert words(UNIT, "ReadWritePaths") == {"-/var/lib/cni"}


@pytest.mark.parametrize("service", [METRICS, RECOVER], ids=lambda unit: unit.name)
def test_systemd_takes_a_service_and_its_timer_without_a_warning(service: Path, tmp_path: Path) -> None:
    units = [service, service.with_suffix(".timer")]
    for unit in units:  # the command is not installed here: let the unit name a program that is
        (tmp_path / unit.name).write_text(unit.read_text().replace(f"{PROGRAM} ", "/usr/bin/true "))
    verify = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in units)]
    done = subprocess.run(verify, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_metrics_unit_may_write_the_file_that_it_names() -> None:
    verb, option = measuring()
    assert verb == "status"
    folders = [path.removeprefix("-") for path in words(METRICS, "ReadWritePaths")]
    assert any(option.startswith(f"--metrics={folder}/") for folder in folders)


@pytest.mark.parametrize("way", ["a FIFO", "no YAML", "everybody's", "another setting", "a folder"])
def test_no_configuration_silences_the_metrics(tree: Tree, way: str) -> None:
    tree.config({"no YAML": "networks: [\n", "another setting": "metrics_file: /x.prom\n"}.get(way, "keep_resets: 2\n"))
    path = tree.root / "etc/cni-lease-reset/config.yaml"
    if way == "everybody's":
        path.chmod(0o666)
    elif way in ("a FIFO", "a folder"):
        path.unlink()
        (os.mkfifo if way == "a FIFO" else os.mkdir)(path)
    tree.lease("10.52.0.2")
    file = tree.root / measuring()[1].removeprefix("--metrics=/")
    file.parent.mkdir(parents=True)
    assert command(tree.node, "boot").returncode == 78
    done = command(tree.node, *measuring())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = file.read_text()
    assert 'cni_lease_reset_boot_result{result="misconfigured"} 1\n' in text
    assert 'cni_lease_reset_leases{network="k8s-pod-network",family="ipv4"} 1\n' in text
    assert re.search(r"^cni_lease_reset_attention_needed [1-9]", text, re.MULTILINE)


def seconds(unit: Path, name: str) -> float:
    """A time that a unit gives."""
    [value] = settings(unit)[name]
    number, scale = re.fullmatch(r"(\d+)(s|min)", value).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "min": 60}[scale]


def test_what_we_wait_for_adds_up_to_less_than_the_units_allow() -> None:
    assert seconds(UNIT, "TimeoutStartSec") > lock.OURS + 2 * lock.SYSTEMD + lock.WHO_LIVES
    assert 2 * lock.OF_SYSTEMD < lock.SHUTDOWN < seconds(UNIT, "TimeoutStopSec")
    a_network = lock.HOST_LOCAL + lock.WHO_LIVES
    assert 5 * a_network < seconds(RECOVER, "TimeoutStartSec")


def test_the_unit_and_the_readme_say_how_long_a_hanging_disk_may_hold_up_rke2() -> None:
    start, stop = seconds(UNIT, "TimeoutStartSec"), seconds(UNIT, "TimeoutStopSec")
    ours = lock.OURS + 2 * lock.SYSTEMD + lock.WHO_LIVES
    for path in (UNIT, TOP / "README.md"):
        text = " ".join(path.read_text().replace("\n#", "").split())
        assert {f"{start + 2 * stop:.0f} s", f"{2 * start + 4 * stop:.0f} s"} <= set(re.findall(r"\d+ s\b", text))
    assert f"those of boot add up to {ours:.0f} s, those of shutdown to {lock.SHUTDOWN:.0f} s" in UNIT.read_text()
