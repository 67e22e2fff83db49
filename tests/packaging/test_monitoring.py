"""What Rancher's monitoring gets: the alerts and the dashboard of packaging/prometheus, and nothing else."""

import json
import subprocess

import kubernetes_validate
import pytest
import yaml
from conftest import TOP

RANCHER = TOP / "packaging/rancher"
PROMETHEUS = TOP / "packaging/prometheus"
RULE, DASHBOARD = yaml.safe_load_all((RANCHER / "monitoring.yaml").read_text())


def test_the_file_is_what_the_generator_writes() -> None:
    done = subprocess.run([RANCHER / "monitoring"], text=True, capture_output=True, check=True)
    assert done.stdout == (RANCHER / "monitoring.yaml").read_text(), "packaging/rancher/monitoring >…/monitoring.yaml"


def test_the_alerts_are_ours() -> None:
    assert (RULE["apiVersion"], RULE["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert RULE["spec"] == yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())


def test_the_dashboard_is_ours_where_rancher_looks_for_it() -> None:
    kubernetes_validate.validate(DASHBOARD, "1.28", strict=True)
    assert DASHBOARD["metadata"]["namespace"] == "cattle-dashboards"
    assert DASHBOARD["metadata"]["labels"]["grafana_dashboard"] == "1"
    [text] = DASHBOARD["data"].values()
    assert json.loads(text) == json.loads((PROMETHEUS / "dashboard.json").read_text())


@pytest.mark.parametrize("package", ["rpm", "deb"])
def test_node_exporter_reads_where_the_package_writes(package: str) -> None:
    unit = (TOP / "packaging/systemd/cni-lease-reset-metrics.service").read_text()
    written = "/var/lib/node_exporter/textfile_collector"
    assert f"--metrics={written}/" in unit
    if package == "deb":
        rules = (TOP / "packaging/deb/rules").read_text()
        written = "/var/lib/prometheus/node-exporter"
        assert f"s|/var/lib/node_exporter/textfile_collector/|{written}/|" in rules
    exporter = yaml.safe_load((RANCHER / "values.yaml").read_text())["prometheus-node-exporter"]
    mounted = {each["hostPath"]: each["mountPath"] for each in exporter["extraHostVolumeMounts"]}
    assert mounted[written] == f"/textfile/{package}"
    assert "--collector.textfile.directory=/textfile/*" in exporter["extraArgs"]


def test_harvester_makes_the_directory_at_boot() -> None:
    """Its /var is made anew."""
    contents = yaml.safe_load((TOP / "packaging/harvester/cloudinit.yaml").read_text())["spec"]["contents"]
    [step] = yaml.safe_load(contents)["stages"]["initramfs"]
    assert "/var/lib/node_exporter/textfile_collector" in {each["path"] for each in step["directories"]}
