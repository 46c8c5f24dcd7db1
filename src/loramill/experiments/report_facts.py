"""What a report says in tables: the data, what was found in it, the resources, and where the run comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loramill.experiments.charts import format_number

GIB, MIB = 2**30, 2**20
RESOURCES = {
    "cpu_percent_mean": ("CPU of this run, mean", 1, "% of one core"),
    "cpu_percent_max": ("CPU of this run, most", 1, "% of one core"),
    "machine_cpu_percent_mean": ("CPU of the machine, mean", 1, "%"),
    "rss_bytes_max": ("memory of this run, most", GIB, "GiB"),
    "machine_memory_percent_max": ("memory of the machine, most", 1, "%"),
    "gpu_percent_mean": ("GPU, mean", 1, "%"),
    "gpu_percent_max": ("GPU, most", 1, "%"),
    "gpu_memory_bytes_max": ("GPU memory, most", GIB, "GiB"),
    "disk_free_bytes_min": ("disk free, least", GIB, "GiB"),
    "disk_read_bytes": ("read from disk", MIB, "MiB"),
    "disk_written_bytes": ("written to disk", MIB, "MiB"),
    "steps": ("steps", 1, ""),
    "samples_per_second": ("speed of the steps", 1, "rows/s"),
    "tokens_per_second": ("speed of the steps", 1, "tokens/s"),
    "step_seconds_median": ("seconds of a step, median", 1, "s"),
    "step_seconds_p95": ("seconds of a step, 95% are below", 1, "s"),
    "padding_share": ("padding, share of all tokens", 1, ""),
    "precision": ("precision", 1, ""),
    "reload_difference": ("largest difference of a logit after reloading", 1, ""),
}
"""Key of ``metrics.json`` -> what a person calls it, what it is divided by, and the unit then."""


def resource_facts(system: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The ``system`` section of ``metrics.json`` in words; what is not known by name keeps its key."""
    return [_resource(key, value) for key, value in system.items()]


def _resource(key: str, value: object) -> tuple[str, str]:
    name, divisor, unit = RESOURCES.get(key, (key, 1, ""))
    scaled = value / divisor if divisor > 1 and isinstance(value, int | float) else value
    return name, f"{_shown(scaled)} {unit}".rstrip()


def data_facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    report = data.get("report", {})
    counts = report.get("label_counts", {})
    labels = ", ".join(f"{_named(code, data.get('label_names') or [])}: {count:,}" for code, count in counts.items())
    facts = {
        "data set": data.get("dataset_name"),
        "training rows": data.get("train_rows"),
        "evaluation rows": data.get("eval_rows"),
        "labels": labels,
        "imbalance ratio": report.get("imbalance_ratio") if labels else None,
    }
    return [(name, _shown(value)) for name, value in facts.items() if value not in (None, "")]


def _named(code: str, names: list[str]) -> str:
    """A label as the data has it, with the name of its class where that says more: ``negative (0)``."""
    if code in names or not code.isdigit() or int(code) >= len(names):
        return code
    return f"{names[int(code)]} ({code})"


def finding_facts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One line a rule: how often it was broken, and one example."""
    counts = report.get("finding_counts", {})
    first: dict[str, dict[str, Any]] = {}
    for finding in report.get("findings", []):
        first.setdefault(finding["code"], finding)
    return [
        {
            "code": code,
            "severity": finding.get("severity", ""),
            "count": counts.get(code, ""),
            "example": finding.get("excerpt", ""),
            "fix": finding.get("fix", ""),
        }
        for code, finding in first.items()
    ]


def lineage_facts(
    config: Mapping[str, Any], data: Mapping[str, Any], environment: Mapping[str, Any]
) -> list[tuple[str, str]]:
    git = environment.get("git") or {}
    packages = environment.get("packages") or {}
    commit = f"{git['commit']}{' with local changes' if git.get('dirty') else ''}" if git.get("commit") else None
    facts = {
        "base model": (config.get("model") or {}).get("name"),
        "training data version": data.get("train"),
        "evaluation data version": data.get("eval"),
        "seed": (config.get("training") or {}).get("seed"),
        "git commit": commit,
        "command": " ".join(environment.get("command") or []),
        "python": environment.get("python"),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "system": environment.get("os"),
        "CPU": (environment.get("cpu") or {}).get("model"),
        "GPU": ", ".join(str(gpu.get("name")) for gpu in environment.get("gpus") or []),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return format_number(value) if isinstance(value, float) else str(value)
