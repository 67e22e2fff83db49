"""The Debian package on a machine with systemd: installed under living pods, upgraded, removed, purged."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from conftest import TOP, tool

from cni_lease_reset.core.model import Marker

from .machine import copy
from .node import CONFIG, HERE, LEASES, RKE2, STATE, UNIT, Node

TIMERS: Final = ("cni-lease-reset-metrics.timer", "cni-lease-reset-recover.timer")
INSTALL: Final = "dpkg --install /run/package.deb 2>&1"
UPGRADE: Final = "dpkg --install /run/newer.deb 2>&1"
RAN: Final = ("ActiveState", "InactiveExitTimestampMonotonic", "InvocationID")  # since the kernel started
NEVER: Final = ("inactive", "0", "")
ALERTING: Final = frozenset({"boot_judged", "pending_reset"})
# RKE2 fails as soon as it starts, again and again; whoever reads there learns of each start.
CRASHES: Final = """\
[Unit]
StartLimitIntervalSec=0
[Service]
RestartSec=10ms
ExecStart=
ExecStart=sh -c 'echo again >/run/lab-starts; exit 1'
"""


class DebianNode(Node):
    """A node below which nothing of ours lies: what there is the package brought."""

    def __init__(self, disk: Path, image: str, packages: Path) -> None:
        super().__init__(disk, image)
        self._packages = packages

    def start(self) -> None:
        super().start()
        for package in self._packages.iterdir():  # not on the disk, which is searched for what a package left
            (self.root / "run" / package.name).write_bytes(package.read_bytes())

    def has_rke2(self) -> None:
        """Have RKE2's stand-in, while it is off."""
        unit, program = f"etc/systemd/system/{RKE2}", "usr/lib/lab/rke2-server"
        self.write(unit, (HERE / f"stand-in/{RKE2}").read_text())
        self.write(program, (HERE / "stand-in/rke2-server").read_text(), mode=0o755)
        wanted = self.root / f"etc/systemd/system/multi-user.target.wants/{RKE2}"
        wanted.parent.mkdir()
        wanted.symlink_to(f"/{unit}")

    def pod(self, number: int) -> None:
        """Have the pod of a lease live: its shim names it."""
        shim = f"sh -c 'sleep infinity; :' containerd-shim-runc-v2 -namespace k8s.io -id {number:064}"
        self.run(f"systemd-run --quiet --unit=pod-{number} {shim}")

    def marked(self) -> str:
        """What the marker says, whoever's it is: units of bookworm see the boot id of the machine that runs the lab."""
        found = self.marker()
        return found.state if isinstance(found, Marker) else "none"

    def is_enabled(self, unit: str = UNIT) -> str:
        return self.try_run(f"systemctl is-enabled {unit}").stdout.strip()

    def metrics(self) -> frozenset[str]:
        """The names of all metrics."""
        lines = self.run("cni-lease-reset status --metrics").splitlines()
        return frozenset(
            line.split()[2].removeprefix("cni_lease_reset_") for line in lines if line.startswith("# TYPE")
        )

    def ours(self) -> frozenset[str]:
        """What is on the disk by a name of ours, the leases' side included."""
        found = self.run("find / -xdev -name '*cni*lease*reset*' -prune -print").splitlines()
        return frozenset(path for path in found if not path.startswith("/var/lib/dpkg/"))


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, and a newer one whose units differ."""
    tool("dh_python3")
    made, folder = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("packages")
    environment = {**os.environ, "DIST": str(made)}
    subprocess.run([TOP / "packaging/deb/build"], env=environment, check=True, stdout=subprocess.DEVNULL)
    package = next(made.glob("*.deb"))
    package.rename(folder / "package.deb")
    newer = made / "newer"
    extract: list[str | Path] = ["dpkg-deb", "--raw-extract", folder / "package.deb", newer]
    subprocess.run(extract, check=True)
    for file in (newer / "DEBIAN/control", *(newer / "usr/lib/systemd/system").iterdir()):
        text = file.read_text()
        file.write_text(
            text.replace("\nVersion: ", "\nVersion: 99.").replace("\nDescription=", "\nDescription=Newer: ")
        )
    build: list[str | Path] = ["dpkg-deb", "--root-owner-group", "--build", newer, folder / "newer.deb"]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture
def node(image: str, packages: Path) -> Iterator[DebianNode]:
    """A node with RKE2, off; nothing of ours was ever there."""
    with TemporaryDirectory(prefix="lab", dir="/dev/shm") as folder:
        node = DebianNode(Path(folder) / "disk", image, packages)
        (node.disk / "upper").mkdir()
        node.has_rke2()
        yield node
        if node.is_on():
            node.crash()


@pytest.fixture(scope="session")
def looked_after(image: str, packages: Path) -> Iterator[Path]:
    """The disk of a node with the package, after a clean shutdown."""
    with TemporaryDirectory(prefix="lab", dir="/dev/shm") as folder:
        node = DebianNode(Path(folder) / "disk", image, packages)
        (node.disk / "upper").mkdir()
        node.has_rke2()
        node.start()
        node.run(INSTALL)
        node.poweroff()
        yield node.disk


@pytest.fixture
def second(looked_after: Path, image: str, packages: Path) -> Iterator[DebianNode]:
    """A node with the package, in its second boot."""
    with TemporaryDirectory(prefix="lab", dir="/dev/shm") as folder:
        node = DebianNode(copy(looked_after, Path(folder) / "disk"), image, packages)
        node.start()
        assert node.show("ActiveState") == ("active",)
        yield node
        if node.is_on():
            node.crash()


def test_installed_under_living_pods_it_waits_for_the_next_boot(node: DebianNode) -> None:
    node.start()
    for number in (2, 3):
        node.pod(number)
    told = node.run(INSTALL)
    assert node.is_enabled() == "enabled", told
    node.run(f"systemctl restart {RKE2}")
    node.write(f"etc/systemd/system/{RKE2}.d/crashes.conf", CRASHES)
    node.run("mkfifo /run/lab-starts; systemctl daemon-reload")
    node.run(f"systemctl --no-block restart {RKE2}; exec 3<>/run/lab-starts; head --lines=8 <&3")
    node.run("systemctl is-active pod-2 pod-3")
    assert not node.metrics() & ALERTING, "each of them fires"
    assert node.show(*RAN) == NEVER
    assert node.leases() == {f"10.52.0.{number}" for number in range(2, 8)}
    assert not (node.root / STATE).exists()

    (node.root / f"etc/systemd/system/{RKE2}.d/crashes.conf").unlink()
    node.crash()
    leaked = node.leases()
    node.start()
    (told_at_boot,) = node.verdicts()
    assert told_at_boot["CNI_VERDICT"] == "unknown"
    assert node.set_aside(told_at_boot["CNI_RESET"]) == leaked
    assert node.marked() == "running"
    assert node.metrics() >= ALERTING


def test_installing_starts_nothing_and_enables_the_boot_unit_alone(node: DebianNode) -> None:
    node.start()
    node.run(INSTALL)
    assert [node.is_enabled(unit) for unit in (UNIT, *TIMERS)] == ["enabled", "disabled", "disabled"]
    for unit in (UNIT, *TIMERS, *(timer.replace(".timer", ".service") for timer in TIMERS)):
        assert node.show(*RAN[:2], unit=unit) == NEVER[:2]
    assert node.run("journalctl --list-catalog | grep --count cni-lease-reset").strip() != "0"
    assert node.run("find /usr/lib/cni-lease-reset -name 'service.*.pyc'"), "compiled by the package"


def test_an_upgrade_touches_nothing_that_runs(second: DebianNode) -> None:
    second.run(f"systemctl enable --now {' '.join(TIMERS)} 2>&1")
    second.run(f"systemctl start {TIMERS[0].replace('timer', 'service')} || :")
    units = (UNIT, *TIMERS)
    before = [second.show(*RAN, "ActiveEnterTimestampMonotonic", unit=unit) for unit in units]
    marker = (second.root / STATE / "marker").stat()
    said = second.entries()
    told = second.run(UPGRADE)
    assert [second.show(*RAN, "ActiveEnterTimestampMonotonic", unit=unit) for unit in units] == before, told
    assert (second.root / STATE / "marker").stat() == marker
    assert second.entries() == said
    assert [second.is_enabled(unit) for unit in units] == ["enabled"] * 3
    for unit in units:
        description, stale = second.show("Description", "NeedDaemonReload", unit=unit)
        assert (description.startswith("Newer: "), stale) == (True, "no")
    second.poweroff()
    assert second.marked() == "clean"


@pytest.mark.parametrize(("way", "told"), [("disable", "disabled"), ("mask", "masked")])
def test_what_an_administrator_said_survives_upgrades(second: DebianNode, way: str, told: str) -> None:
    second.run(f"systemctl {way} {UNIT} 2>&1; echo 'keep_resets: 7' >>/{CONFIG}")
    for again in (UPGRADE, UPGRADE):  # the second one finds what the first one left
        second.run(again)
        assert second.is_enabled() == told
    assert "keep_resets: 7" in second.run("cni-lease-reset config")
    assert second.marked() == "running"


def test_removed_it_is_stopped_and_its_state_stays(second: DebianNode) -> None:
    second.run(f"systemctl enable --now {' '.join(TIMERS)} 2>&1")
    leases, before = second.leases(), second.ours()
    shelf = second.run(f"find /{STATE}/set-aside | sort")
    assert "10.52.0." in shelf
    second.run("dpkg --remove cni-lease-reset 2>&1")
    for unit in (UNIT, *TIMERS):
        assert second.show("ActiveState", "LoadState", unit=unit) == ("inactive", "not-found")
    assert second.marked() == "none", "nobody is there to mark the end"
    assert second.run(f"find /{STATE}/set-aside | sort") == shelf
    assert (second.leases(), second.show("ActiveState", unit=RKE2)) == (leases, ("active",))
    left = second.ours()
    assert {f"/{STATE}", "/etc/cni-lease-reset"} < left < before
    assert not [path for path in left if path.startswith("/usr/")]


def test_purged_it_leaves_the_leases_alone(second: DebianNode) -> None:
    second.run(f"systemctl enable {' '.join(TIMERS)} 2>&1; echo 'keep_resets: 7' >>/{CONFIG}")
    leases = second.leases()
    told = second.run("dpkg --purge cni-lease-reset 2>&1")
    assert "not empty" not in told
    assert second.ours() == frozenset()
    assert second.leases() == leases
    assert (second.root / LEASES / "last_reserved_ip.0").exists()
    assert second.run("dpkg --list 'cni-lease-reset*' 2>/dev/null || :") == ""


def test_installed_again_after_a_removal_it_looks_after_the_next_boot(second: DebianNode) -> None:
    second.run("dpkg --remove cni-lease-reset 2>&1")
    second.run(INSTALL)
    assert (second.is_enabled(), second.show("ActiveState")) == ("enabled", ("inactive",))
    second.poweroff()
    second.start()
    (told,) = second.verdicts()
    assert told["CNI_VERDICT"] == "unknown"
