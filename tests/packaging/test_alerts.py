"""Each alert, from what the program writes on a node in that state to what promtool makes of it.

Only what Prometheus and node_exporter say themselves (``up``, the state of the unit) is written by hand.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import yaml
from cni_config import conflist
from conftest import NEXT, TOP, Kept, Systemd, held_lock, tool
from reported import done
from tree import OTHER, THIS, Tree

from cni_lease_reset import cli, service
from cni_lease_reset.edges import record

PROMETHEUS = TOP / "packaging/prometheus"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
}
FILE = "/textfile/cni-lease-reset.prom"
FAILED = 'node_systemd_unit_state{name="cni-lease-reset.service", state="failed"}'
A_DAY = 24 * 60  # minutes


class Node(Tree):
    """A node, and what Prometheus has scraped of it, minute by minute."""

    def __init__(self, above: Path, name: str) -> None:
        self.name = name
        (above / name / "textfile").mkdir(parents=True)
        super().__init__(above / name)
        self.up_for(10)
        self.series: dict[str, list[str]] = {}
        self.minutes = 0

    def up_for(self, minutes: int) -> None:
        (self.root / "proc/uptime").write_text(f"{minutes * 60}.25 0.00\n")

    def scraped(self, minutes: int, others: Mapping[str, int] | None = None, *, ours: bool = True) -> None:
        """Let the program write, and Prometheus read that for some minutes."""
        text = "".join(f"{key} {value}\n" for key, value in (others or {}).items())
        if ours:
            assert cli.main(["--root", str(self.root), "status", f"--metrics={FILE}"]) == 0
            text += (self.root / FILE[1:]).read_text()
        found = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                metric, _, value = line.rpartition(" ")
                name, _, labels = metric.rstrip("}").partition("{")
                found[f'{name}{{instance="{self.name}"{labels and f", {labels}"}}}'] = value
        for key in self.series.keys() | found.keys():
            row = self.series.setdefault(key, ["_"] * self.minutes)
            gone = "stale" if row and row[-1] not in ("_", "stale") else "_"
            row += [found[key]] * minutes if key in found else [gone] + ["_"] * (minutes - 1)
        self.minutes += minutes


def booted(node: Node, manager: Systemd | None = None) -> None:
    service.boot(node.node, manager or Systemd(), Kept())


def installed(node: Node) -> None:
    """What the packages' scripts leave where they come to a running node."""
    (node.root / "run/cni-lease-reset").mkdir(parents=True)
    (node.root / "run/cni-lease-reset/installed").touch()


Fired = dict[str, str]  # the labels of one that fires; "percent" is no label but its value
Case = Callable[[Path], tuple[Sequence[Node], dict[int, list[Fired]]]]


def unclean_shutdown(above: Path) -> tuple[Sequence[Node], dict[int, list[Fired]]]:
    """The clock of a node may be anything when it boots, and be set later."""
    a, b, c, d = (Node(above, name) for name in "abcd")
    a.mark("running")
    b.mark("clean")
    c.mark("odd")
    d.mark("running")
    for node, clock in ((a, 0), (b, 0), (c, 0), (d, 4_000_000_000)):
        booted(node)
        os.utime(node.root / "run/cni-lease-reset/boot", (clock, clock))
        node.scraped(30)
        node.up_for(A_DAY + 1)
        node.scraped(30)
    fired = [{"instance": "a", "verdict": "unclean"}, {"instance": "c", "verdict": "damaged"}]
    return (a, b, c, d), {10: [*fired, {"instance": "d", "verdict": "unclean"}], 50: []}


def pool_crowded(above: Path) -> tuple[Sequence[Node], dict[int, list[Fired]]]:
    a, b, c, d, e = (Node(above, name) for name in "abcde")
    small = {"type": "host-local", "ranges": [[{"subnet": "10.51.0.0/29"}], [{"subnet": "10.52.0.0/24"}]]}
    for node, leases in ((a, 5), (b, 5), (c, 5), (d, 4)):
        conflist(node, small)
        for number in range(2, 2 + leases):
            node.lease(f"10.51.0.{number}")
            node.lease(f"10.52.0.{number}")
    conflist(b, {"type": "host-local", "ranges": [[{"subnet": "10.52.0.0/29"}]]})
    for number in range(5, 7):
        (b.network / f"10.52.0.{number}").unlink()  # 3 of 5, and 5 of another subnet
    for number in range(2, 250):
        e.lease(f"10.52.0.{number}")  # of a size that nobody tells
    for node in (a, b, d, e):
        node.scraped(60)
    c.scraped(20)
    (c.network / "10.51.0.2").unlink()
    c.scraped(40)
    labels = {"network": "k8s-pod-network", "family": "ipv4", "range_set": "10.51.0.1-10.51.0.6"}
    return (a, b, c, d, e), {20: [], 45: [{"instance": "a", "percent": "100%"} | labels]}


def reset_pending(above: Path) -> tuple[Sequence[Node], dict[int, list[Fired]]]:
    a, b, c = (Node(above, name) for name in "abc")
    for node in (a, c):
        node.state.mkdir(parents=True)  # and no marker in it
    done(b)
    installed(c)
    for node in (a, b, c):
        node.scraped(60)
    return (a, b, c), {10: [], 20: [{"instance": "a"}]}


def config_invalid(above: Path) -> tuple[Sequence[Node], dict[int, list[Fired]]]:
    """Told while it is true and no longer, whatever boot made of it."""
    a, b, c, d = (Node(above, name) for name in "abcd")
    a.config("network: [x]\n")
    b.config("networks: [x]\n")
    c.config("networks: [x]\n")
    (c.root / "etc/cni-lease-reset/config.yaml").chmod(0o666)
    (d.root / "etc/cni-lease-reset/config.yaml").mkdir(parents=True)
    for node in (a, b, c, d):
        node.mark("running")
        booted(node)
        node.scraped(30)
    a.config("networks: [x]\n")
    for node in (a, b, c, d):
        node.scraped(30)
    return (a, b, c, d), {20: [{"instance": each} for each in "acd"], 50: [{"instance": each} for each in "cd"]}


def failed(above: Path) -> tuple[Sequence[Node], dict[int, list[Fired]]]:
    a, b, c, d, e = (Node(above, name) for name in "abcde")
    for node in (a, b, c, d):
        node.mark("running")
        node.lease("10.52.0.2")
    for node in (a, b):
        with held_lock(node):
            booted(node)
    booted(c, Systemd({"k3s.service": "active"}))  # refused
    d.config("network: [x]\n")
    booted(d)
    d.config("")  # mended, and the unit started again
    done(e)
    other = FAILED.replace("cni-lease-reset", "other")
    for node, unit in ((a, FAILED), (e, other)):
        node.scraped(60, {unit: 1})
    for node in (b, c, d):
        node.scraped(60, {FAILED: 0})
    by_systemd = {"instance": "a", "name": "cni-lease-reset.service", "state": "failed"}
    return (a, b, c, d, e), {10: [by_systemd, {"instance": "b", "result": "failed"}]}


def did_not_run(above: Path) -> tuple[Sequence[Node], dict[int, list[Fired]]]:
    """Told by the boot's id: a record that any clock dated counts, one of another boot does not."""
    a, b, c, d, e, f = (Node(above, name) for name in "abcdef")
    for node in (a, b, c):
        node.mark("running")
        booted(node)
        node.scraped(30)
    os.utime(b.root / "run/cni-lease-reset/boot", (0, 0))
    a.next_kernel(NEXT)
    a.up_for(1)
    (c.root / "proc/sys/kernel/random/boot_id").write_text(f"{NEXT}\n")  # and its /run is that of the boot before
    record.write(d.node, THIS)  # began, and did not end
    e.mark("running", OTHER)  # nothing of ours ran
    for node in (a, b, c):
        node.scraped(30, {"node_boot_time_seconds": 1_795_200_000})
    installed(f)
    for node in (d, e, f):
        node.scraped(60)
    return (a, b, c, d, e, f), {20: [{"instance": each} for each in "de"], 50: [{"instance": each} for each in "acde"]}


def no_data(above: Path) -> tuple[Sequence[Node], dict[int, list[Fired]]]:
    a, b, c, d, e = (Node(above, name) for name in "abcde")
    up = 'up{job="node"}'
    a.scraped(180, {up: 1}, ours=False)
    c.scraped(180, {up: 0}, ours=False)
    d.scraped(180, {'up{job="etcd"}': 1}, ours=False)
    for minutes in range(0, 180, 5):
        b.up_for(minutes)
        b.scraped(5, {up: 1})
    e.scraped(180, {up: 1})  # written once, and never again
    return (a, b, c, d, e), {50: [], 170: [{"instance": "a", "job": "node"}, {"instance": "e"}]}


CASES: dict[str, Case] = {
    "CniUncleanShutdown": unclean_shutdown,
    "CniPoolCrowded": pool_crowded,
    "CniResetPending": reset_pending,
    "CniConfigInvalid": config_invalid,
    "CniLeaseResetFailed": failed,
    "CniLeaseResetDidNotRun": did_not_run,
    "CniLeaseResetNoData": no_data,
}


def rendered(text: str, fired: Fired) -> str:
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: fired[match[1]], text)
    return text.replace("{{ $value | humanizePercentage }}", fired.get("percent", ""))


def expected(alert: str, fired: Fired) -> dict[str, object]:
    """What promtool is to find of one that fires."""
    labels = {key: value for key, value in fired.items() if key != "percent"} | RULES[alert]["labels"]
    notes = {key: rendered(text, fired) for key, text in RULES[alert]["annotations"].items()}
    assert "{{" not in str(notes)
    return {"exp_labels": labels, "exp_annotations": notes}


@pytest.mark.parametrize("alert", sorted(RULES))
def test_an_alert_fires_where_it_should_and_nowhere_else(tmp_path: Path, alert: str) -> None:
    nodes, times = CASES[alert](tmp_path)
    assert any(times.values()), "it fires at least once"
    test = {
        "interval": "1m",
        "input_series": [
            {"series": key, "values": " ".join(row)} for node in nodes for key, row in node.series.items()
        ],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": [expected(alert, each) for each in fired]}
            for minute, fired in times.items()
        ],
    }
    rules = [str(PROMETHEUS / "alerts.yaml")]
    document = {"rule_files": rules, "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yaml").write_text(json.dumps(document))
    call = [tool("promtool"), "test", "rules", "test.yaml"]
    done = subprocess.run(call, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_no_case_without_an_alert() -> None:
    assert sorted(CASES) == sorted(RULES)
