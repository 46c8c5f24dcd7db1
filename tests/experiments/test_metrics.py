from __future__ import annotations

import math

import pytest

from loramill.experiments.metrics import flatten_metrics, lower_is_better


def test_sections_become_prefixes_and_tables_stay_out() -> None:
    metrics = {
        "train": {"runtime": 3, "loss": 0.5},
        "eval": {"accuracy": 0.9, "per_class": {"a": {"f1": 1.0}}, "confusion_matrix": [[1, 0], [0, 1]]},
        "system": {"device": "cpu", "cpu": {"mean": 0.4}, "bf16": True},
    }
    expected = {"train_runtime": 3.0, "train_loss": 0.5, "eval_accuracy": 0.9, "system_cpu_mean": 0.4}
    assert flatten_metrics(metrics) == expected


def test_what_no_database_can_sort_stays_out() -> None:
    assert flatten_metrics({"eval": {"loss": math.nan, "auc": math.inf, "f1": None}}) == {}


@pytest.mark.parametrize("name", ["eval_loss", "train_runtime", "eval_log_loss", "eval_ece", "step_time"])
def test_small_is_good(name: str) -> None:
    assert lower_is_better(name)


@pytest.mark.parametrize("name", ["eval_accuracy", "train_samples_per_second", "eval_precision_macro"])
def test_large_is_good(name: str) -> None:
    assert not lower_is_better(name)
