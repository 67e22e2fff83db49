"""The Debian package on nodes of a suite: installed, upgraded, removed and purged where systemd is up.

Run by ``make deb-test SUITE=bookworm|trixie|forky`` and not by ``make test``: each suite needs a root of its own.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from conftest import tool
from lab.machine import copy
from lab.node import CONFIG, LEASES, RKE2, STATE, UNIT, Node
from test_alerts import PROMETHEUS, RULES
from test_deb import build

SUITE: Final = os.environ.get("SUITE") or "trixie"
HERE: Final = Path(__file__).parent
TIMERS: Final = ("cni-lease-reset-metrics.timer", "cni-lease-reset-recover.timer")
METRICS_UNIT: Final = "cni-lease-reset-metrics.service"
# With this systemd 252 gives a unit a /proc of its own, as it does our boot unit: both see the same boot id in here.
SAME_PROC: Final = "[Service]\nProtectKernelTunables=yes\n"
METRICS: Final = "var/lib/prometheus/node-exporter/cni-lease-reset.prom"

# What RKE2's start does: one more pod, which outlives it (KillMode=process). Told to crash it does so each time.
STAND_IN: Final = """\
#!/bin/sh
set -eu
mkdir -p /var/lib/cni/networks/k8s-pod-network
cd /var/lib/cni/networks/k8s-pod-network
number=$(($(ls | wc -l) + 2))
id=$(printf %064d $number)
printf '%s\\r\\neth0' $id >10.52.0.$number
python3 -c 'import signal; signal.pause()' \\
    containerd-shim-runc-v2 -namespace k8s.io -id $id -address /run/k3s/containerd/containerd.sock &
systemd-notify --ready
if [ -p /run/crash ]; then echo >/run/crash; exit 1; fi
exec sleep infinity
"""
STAND_IN_UNIT: Final = """\
[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
NotifyAccess=all
KillMode=process
Delegate=yes
TimeoutStartSec=0
Restart=always
RestartSec=100ms
ExecStart=/usr/lib/lab/rke2-server
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="session")
def packages() -> Iterator[tuple[Path, Path]]:
    """The package, and a newer release of it whose boot unit says so."""
    with TemporaryDirectory(prefix="deb") as folder:
        older, newer = build(Path(folder) / "older"), build(Path(folder) / "newer", release="2")
        tree = Path(folder) / "tree"
        subprocess.run(["dpkg-deb", "--raw-extract", newer, tree], check=True)
        unit = tree / "usr/lib/systemd/system" / UNIT
        unit.write_text(unit.read_text().replace("Description=", "Description=Newer: "))
        done = subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", tree, newer], text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        yield older, newer


class Debian(Node):
    """A node to which packages come."""

    def give(self, packages: tuple[Path, Path]) -> None:
        (self.root / "opt").mkdir(exist_ok=True)
        for path, name in zip(packages, ("older", "newer"), strict=True):
            shutil.copy(path, self.root / f"opt/{name}.deb")

    def apt(self, *arguments: str) -> None:
        environment = "DEBIAN_FRONTEND=noninteractive"
        self.run(f"{environment} apt-get --yes --quiet {' '.join(arguments)} </dev/null")

    def install(self, release: str = "older") -> None:
        self.apt("install", f"/opt/{release}.deb")

    def files(self) -> set[str]:
        """All that is there, but for what any installation of any package leaves."""
        found = self.run("find /etc /usr /var /opt /root /home /srv -xdev").splitlines()
        anybodys = re.compile(
            r"/var/lib/(dpkg|apt|systemd/(timers|catalog))\b|/var/(cache|log|tmp)/|/etc/systemd/system$|.*/__pycache__"
        )
        return {path for path in found if not anybodys.match(path) or "cni-lease-reset" in path}

    def never_ran(self) -> bool:
        """Whether the boot unit did not start since this machine is up."""
        return self.show("ActiveState", "InactiveExitTimestampMonotonic", "ExecMainStartTimestampMonotonic") == (
            "inactive",
            "0",
            "0",
        )


@pytest.fixture(scope="session")
def room(packages: tuple[Path, Path]) -> Iterator[tuple[Path, str]]:
    """Where disks are, and what is below each."""
    tool("mmdebstrap")
    made = subprocess.run([HERE / "deb-root", SUITE], text=True, stdout=subprocess.PIPE, check=True).stdout.strip()
    with TemporaryDirectory(prefix="deb", dir="/dev/shm") as folder:
        yield Path(folder), made


@pytest.fixture(scope="session")
def nodes(room: tuple[Path, str], packages: tuple[Path, Path]) -> dict[str, Path]:
    """The disks of a node before the package came, and after the first boot with it."""
    bare = Debian(room[0] / "bare", room[1])
    bare.start()
    bare.give(packages)
    bare.poweroff()
    installed = Debian(copy(bare.disk, room[0] / "installed"), room[1])
    installed.start()
    installed.install()
    installed.poweroff()
    return {"bare": bare.disk, "installed": installed.disk}


@pytest.fixture
def node(request: pytest.FixtureRequest, nodes: dict[str, Path], room: tuple[Path, str]) -> Iterator[Debian]:
    """A node that is on, with a copy of such a disk."""
    with TemporaryDirectory(dir=room[0]) as folder:
        node = Debian(copy(nodes[request.param], Path(folder) / "disk"), room[1])
        node.start()
        yield node
        if node.is_on():
            node.crash()


bare = pytest.mark.parametrize("node", ["bare"], indirect=True)
installed = pytest.mark.parametrize("node", ["installed"], indirect=True)


@bare
def test_it_is_enabled_and_not_started(node: Debian) -> None:
    node.install()
    assert node.never_ran()
    assert node.show("UnitFileState", "NeedDaemonReload") == ("enabled", "no")
    for timer in TIMERS:
        assert node.show("UnitFileState", "ActiveState", unit=timer) == ("disabled", "inactive")
    assert not (node.root / "var/lib/cni").exists()
    assert "cni-lease-reset" in node.run("journalctl --list-catalog")
    assert node.run("cni-lease-reset --version").startswith("cni-lease-reset ")
    assert node.run("find /usr/lib/cni-lease-reset -name 'cli.*.pyc' | wc -l") == "1\n"
    assert (node.root / "run/cni-lease-reset/installed").exists()


@installed
def test_the_next_boot_is_looked_after(node: Debian) -> None:
    assert node.show("ActiveState", "Result") == ("active", "success")
    assert not (node.root / "run/cni-lease-reset/installed").exists()
    [told] = node.verdicts()
    assert told["CNI_VERDICT"] == "unknown"
    assert "state=running" in (node.root / STATE / "marker").read_text()


@installed
def test_an_upgrade_neither_stops_nor_starts_anything(node: Debian) -> None:
    node.run(f"systemctl enable --now {TIMERS[0]}")
    node.write(CONFIG, "keep_resets: 7\n")
    seen = ("ActiveState", "InvocationID", "ActiveEnterTimestampMonotonic", "UnitFileState")
    before = {unit: node.show(*seen, unit=unit) for unit in (UNIT, *TIMERS)}
    marker = (node.root / STATE / "marker").stat()
    node.install("newer")
    assert {unit: node.show(*seen, unit=unit) for unit in (UNIT, *TIMERS)} == before
    assert before[UNIT][0] == before[TIMERS[0]][0] == "active"
    assert (node.root / STATE / "marker").stat() == marker
    assert len(node.verdicts()) == 1
    assert node.show("Description", "NeedDaemonReload")[0].startswith("Newer: "), "the new unit is known"
    assert node.show("NeedDaemonReload") == ("no",)
    assert node.run("cni-lease-reset config | grep keep_resets") == "keep_resets: 7  # from the file\n"
    assert not (node.root / "run/cni-lease-reset/installed").exists(), "that is for a first installation"


@installed
@pytest.mark.parametrize(("way", "expected"), [("disable", "disabled"), ("mask", "masked")])
def test_an_administrators_word_survives(node: Debian, way: str, expected: str) -> None:
    node.run(f"systemctl --quiet {way} {UNIT}")
    assert node.show("UnitFileState") == (expected,)
    node.install("newer")
    assert node.show("UnitFileState") == (expected,)
    node.apt("remove", "cni-lease-reset")
    node.install("older")
    assert node.show("UnitFileState") == (expected,)
    node.install("newer")
    assert node.show("UnitFileState") == (expected,)


def given_leases(node: Debian) -> None:
    """A lease of now, and some of a reset."""
    node.write(f"{LEASES}/10.52.0.2", f"{'0' * 64}\r\neth0")
    node.write(f"{STATE}/set-aside/1-20261123T061201Z-11111111/k8s-pod-network/10.52.0.3", "")


@installed
def test_removal_stops_it_and_keeps_leases_and_state(node: Debian) -> None:
    given_leases(node)
    (node.root / METRICS).parent.mkdir(parents=True)
    node.run(f"systemctl enable --now {' '.join(TIMERS)}; systemctl start cni-lease-reset-metrics.service")
    assert (node.root / METRICS).exists()
    node.apt("remove", "cni-lease-reset")
    for unit in (UNIT, *TIMERS):
        assert node.show("ActiveState", "LoadState", unit=unit)[0] == "inactive"
    assert not (node.root / METRICS).exists(), "nobody writes it any more"
    assert not (node.root / STATE / "marker").exists(), "a stop that is no shutdown marks nothing"
    assert node.leases() == {"10.52.0.2"}
    assert node.set_aside("1-20261123T061201Z-11111111") == {"10.52.0.3"}
    assert (node.root / CONFIG).exists()
    assert node.run("systemctl list-units --failed --no-legend 'cni-*'") == ""


@bare
def test_purge_leaves_nothing_but_leases(node: Debian) -> None:
    before = node.files()
    node.install()
    assert len(node.files() - before) > 60
    node.run(f"systemctl start {UNIT}; systemctl --quiet enable {' '.join(TIMERS)}; cni-lease-reset status")
    given_leases(node)
    node.apt("purge", "cni-lease-reset")
    lease = Path("/") / LEASES / "10.52.0.2"
    left = {str(lease), *(str(parent) for parent in lease.parents if "cni" in str(parent))}
    assert node.files() ^ before == left
    assert node.run("systemctl list-unit-files --no-legend 'cni-*' || :") == ""


@bare
def test_a_live_node_notices_nothing_until_its_next_boot(node: Debian, room: tuple[Path, str]) -> None:
    """RKE2 is restarted and crashes again and again; what the metrics say raises no alert."""
    node.write("usr/lib/lab/rke2-server", STAND_IN, mode=0o755)
    node.write(f"etc/systemd/system/{RKE2}", STAND_IN_UNIT)
    node.run(f"systemctl daemon-reload; systemctl --quiet enable --now {RKE2}; systemctl restart {RKE2}")
    (node.root / METRICS).parent.mkdir(parents=True)
    node.write(f"etc/systemd/system/{METRICS_UNIT}.d/lab.conf", SAME_PROC)
    assert len(node.leases()) == 2
    node.install()
    node.run(f"systemctl --quiet enable --now {TIMERS[0]}")
    node.run(f"systemctl restart {RKE2}")
    five = "for _ in 1 2 3 4 5; do read _ <&3; done"
    node.run(f"mkfifo /run/crash; exec 3<>/run/crash; systemctl --no-block restart {RKE2}; {five}")
    assert node.never_ran()
    assert len(node.leases()) >= 8, "one more each time, and none has gone"
    assert not (node.root / STATE).exists()

    node.run(f"systemctl start {METRICS_UNIT}")
    raises_no_alert((node.root / METRICS).read_text(), room[0])
    [attention] = json.loads(node.run("cni-lease-reset status --json"))["attention"]
    assert attention.startswith("The marker is lost at each boot, for / is an overlay"), "as it is in the lab"

    node.crash()
    leases = node.leases()  # not before: RKE2 crashes on, one more each time
    node.start()
    [told] = node.verdicts()
    assert (told["CNI_VERDICT"], told["CNI_LEASES_CLEARED"]) == ("unknown", str(len(leases)))
    assert node.set_aside(told["CNI_RESET"]) == leases
    assert node.show("ActiveState", unit=RKE2) == ("active",)
    node.run(f"systemctl start {METRICS_UNIT}")
    raises_no_alert((node.root / METRICS).read_text(), room[0])


def raises_no_alert(metrics: str, folder: Path) -> None:
    """Let Prometheus scrape this for an hour."""
    series = []
    for line in metrics.splitlines():
        if not line.startswith("#"):
            metric, _, value = line.rpartition(" ")
            name, _, labels = metric.rstrip("}").partition("{")
            series.append({"series": f'{name}{{instance="a"{labels and f", {labels}"}}}', "values": f"{value}x60"})
    assert len(series) > 5
    quiet = [
        {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []} for alert in RULES for minute in (20, 50)
    ]
    test = {"interval": "1m", "input_series": series, "alert_rule_test": quiet}
    document = {"rule_files": [str(PROMETHEUS / "alerts.yaml")], "evaluation_interval": "1m", "tests": [test]}
    (folder / "test.yaml").write_text(json.dumps(document))
    command = [tool("promtool"), "test", "rules", "test.yaml"]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
