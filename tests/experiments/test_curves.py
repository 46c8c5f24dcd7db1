from __future__ import annotations

import math

from loramill.experiments.curves import read_curves, read_resource_curves


def test_the_later_reading_of_a_step_counts() -> None:
    events = [
        {"type": "log", "step": 20, "loss": 0.5},
        {"type": "log", "step": 10, "loss": 0.9},
        {"type": "log", "step": 20, "loss": 0.4},
        {"type": "eval", "step": 20, "metrics": {"eval_accuracy": 0.8, "eval_note": "x"}},
    ]
    assert read_curves(events) == {"train_loss": ((10.0, 0.9), (20.0, 0.4)), "eval_accuracy": ((20.0, 0.8),)}


def test_odd_events_are_left_out() -> None:
    events = [
        {},
        {"type": "log"},
        {"type": "log", "step": "x", "loss": 1},
        {"type": "eval", "step": 1, "metrics": None},
    ]
    events += [{"type": "log", "step": 1, "loss": math.nan}, {"type": "log", "step": True, "loss": 1.0}]
    assert read_curves(events) == {}


def test_resources_start_at_zero_seconds() -> None:
    events = [
        {"type": "resource", "time": 100.0, "cpu_percent": 50, "gpu_percent": None},
        {"type": "resource", "time": 102.5, "cpu_percent": 70},
    ]
    assert read_resource_curves(events) == {"cpu_percent": ((0.0, 50.0), (2.5, 70.0))}
    assert read_resource_curves([]) == {}
