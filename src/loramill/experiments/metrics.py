"""Names of metrics: from the sections of ``metrics.json`` to the flat names of filters, tables and plots."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

STRUCTURED = frozenset({"per_class", "confusion_matrix", "calibration"})
"""Parts of ``metrics.json`` that are tables, read by the report and not one number each."""

LOWER_IS_BETTER = frozenset(
    {"loss", "runtime", "time", "error", "perplexity", "ece", "mse", "rmse", "mae", "bytes", "seconds", "ms"}
)
"""Words in a metric's name that say so; of every other metric the largest value is best."""


def lower_is_better(metric: str) -> bool:
    """Whether the smallest value of a metric is the best one, by the words of its name."""
    return not LOWER_IS_BETTER.isdisjoint(metric.split("_"))


def has_a_best(metric: str) -> bool:
    """Whether one run can be better than another by it: what was evaluated, losses, and speeds; not what was used."""
    section, _, rest = metric.partition("_")
    if section == "system" or rest == "samples":
        return False
    return section != "train" or rest.endswith(("loss", "runtime", "per_second"))


def flatten_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """``{"eval": {"accuracy": 0.9}}`` -> ``{"eval_accuracy": 0.9}``; only finite numbers."""
    return dict(_numbers(metrics, ""))


def _numbers(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in section.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if key not in STRUCTURED:
                yield from _numbers(value, f"{name}_")
        elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            yield name, float(value)
