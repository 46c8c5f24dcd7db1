"""Curves of a run, from the events that it left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Curve = tuple[tuple[float, float], ...]
"""(step, value) by step; resources have seconds since the start in place of steps."""

LOGGED = ("loss", "learning_rate", "grad_norm", "samples_per_second", "tokens_per_second")
RESOURCES = ("cpu_percent", "rss_bytes", "gpu_percent", "gpu_memory_bytes")


def read_curves(events: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """``train_<what was logged>`` and every evaluated metric, by step.

    A resumed run logs some steps twice; the later reading counts.
    """
    curves: dict[str, dict[float, float]] = {}
    for event in events:
        if event.get("type") == "log":
            numbers = {f"train_{name}": event.get(name) for name in LOGGED}
        elif event.get("type") == "eval":
            numbers = dict(event.get("metrics") or {})
        else:
            continue
        step = event.get("step")
        for name, value in numbers.items():
            if _is_number(step) and _is_number(value):
                curves.setdefault(name, {})[float(step)] = float(value)  # type: ignore[arg-type]
    return {name: tuple(sorted(points.items())) for name, points in curves.items()}


def read_resource_curves(events: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """What the machine was doing, by seconds since the first reading."""
    readings = [event for event in events if event.get("type") == "resource" and _is_number(event.get("time"))]
    if not readings:
        return {}
    start = readings[0]["time"]
    curves = {
        name: tuple((event["time"] - start, float(event[name])) for event in readings if _is_number(event.get(name)))
        for name in RESOURCES
    }
    return {name: curve for name, curve in curves.items() if curve}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
