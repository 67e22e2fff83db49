"""What Prometheus is given: alerts and dashboard ask for nothing that is not there, and promtool understands them."""

import json
import re
import subprocess
from pathlib import Path
from typing import TypedDict

from conftest import GOLDEN, TOP, tool

PROMETHEUS = TOP / "packaging/prometheus"


def names(text: str) -> set[str]:
    return set(re.findall(r"\bcni_lease_reset_[a-z_0-9]+", text))


def test_the_page_for_monitoring_has_each_metric() -> None:
    page = (TOP / "docs/monitoring.md").read_text()
    assert names((GOLDEN / "metrics.prom").read_text()) == names(page)


def test_promtool_has_nothing_to_say_of_the_alerts() -> None:
    call = [tool("promtool"), "check", "rules", "alerts.yaml"]
    done = subprocess.run(call, cwd=PROMETHEUS, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS: 7 rules found" in done.stdout


class Panel(TypedDict):
    id: int
    title: str
    gridPos: dict[str, int]
    targets: list[dict[str, str]]


def panels() -> list[Panel]:
    found: list[Panel] = json.loads((PROMETHEUS / "dashboard.json").read_text())["panels"]
    return found


def test_alerts_and_dashboard_ask_for_metrics_that_exist() -> None:
    known = names((GOLDEN / "metrics.prom").read_text())
    for file in ("alerts.yaml", "dashboard.json"):
        assert names((PROMETHEUS / file).read_text()) <= known, file


def test_prometheus_understands_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
    assert len(expressions) >= len(panels()) == 10
    rules = [{"record": f"r{number}", "expr": expr} for number, expr in enumerate(expressions)]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        [tool("promtool"), "check", "rules", tmp_path / "rules.yaml"], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        mine = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not mine & cells, panel["title"]
        cells |= mine
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)
