"""The Grafana dashboard shows numbers that the services have."""

from __future__ import annotations

import json
import re
from typing import Any

from prometheus_client import generate_latest

from deployment_files import CHART
from loramill.inference.telemetry import Telemetry
from loramill.monitor.prometheus import render_service_metrics
from loramill.monitor.worker_metrics import WorkerMetrics

DASHBOARD: dict[str, Any] = json.loads((CHART / "dashboards" / "loramill.json").read_text(encoding="utf-8"))


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def known_metrics() -> set[str]:
    telemetry = Telemetry()
    telemetry.observe_gauges(lambda: 0, lambda: 0, lambda: 0)
    worker = WorkerMetrics(lambda: 0.0)
    worker.attempt_ended("SUCCESS", 1.0)
    services = [render_service_metrics({"SUCCESS": 1}, 0), telemetry.render(), generate_latest(worker.registry)]
    pages = b"".join(services).decode()
    families = re.findall(r"^# TYPE (\w+) (\w+)$", pages, re.MULTILINE)
    parts = {"histogram": ["_bucket", "_sum", "_count"]}
    return {name + part for name, kind in families for part in parts.get(kind, [""])}


def test_every_metric_is_one_that_a_service_has() -> None:
    used = set(re.findall(r"\b(?:loramill|process)_\w+", " ".join(expressions())))
    assert len(used) > 8
    assert used <= known_metrics()


def test_panels_do_not_lie_on_each_other() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_panels_ask_the_source_that_the_reader_chose() -> None:
    sources = {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    assert sources == {"${datasource}"}
