"""What a deployment is made of, as the tests of ``tests/deploy`` read it."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

ROOT = Path(__file__).parents[1]
CHART = ROOT / "k8s" / "chart"
MANIFESTS = ROOT / "k8s" / "manifests"
VALUES = ["values.yaml", "values.prod.yaml"]
SECRETS = (
    "JWT_SECRET",
    "LORAMILL_AUDIT_KEY",
    "LORAMILL_INFERENCE_KEY",
    "LORAMILL_ADMIN_PASSWORD",
    "REDIS_PASSWORD",
    "POSTGRES_PASSWORD",
    "GRAFANA_PASSWORD",
    "FLOWER_PASSWORD",
)
Object = dict[str, Any]


def tool(name: str) -> str:
    """A command that came with the developers' packages."""
    return str(Path(sys.executable).with_name(name))


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command], **{"capture_output": True, "text": True, "cwd": ROOT, "timeout": 60, **options})


@functools.cache
def rendered(values: str) -> tuple[Object, ...]:
    """Every object of the chart with one of its values files."""
    given = yaml.safe_load((CHART / values).read_text(encoding="utf-8"))
    with Chart.load(CHART) as chart:
        files = chart.render(given, name="loramill", namespace="loramill")
    return tuple(found for path, text in sorted(files.items()) if path.endswith(".yaml") for found in objects(text))


@functools.cache
def manifests() -> tuple[Object, ...]:
    files = sorted(MANIFESTS.glob("*.yaml"))
    return tuple(found for file in files for found in objects(file.read_text(encoding="utf-8")))


def objects(text: str) -> Iterator[Object]:
    yield from (found for found in yaml.safe_load_all(text) if found)


def pods(found: tuple[Object, ...]) -> dict[str, Object]:
    """Name of a workload -> what its pods are."""
    kinds = ("Deployment", "StatefulSet", "Job")
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in found if one["kind"] in kinds}


def image_of(pod: Object) -> str:
    name: str = pod["containers"][0]["image"]
    return re.sub(r"^.*/|:[^:]*$", "", name)
