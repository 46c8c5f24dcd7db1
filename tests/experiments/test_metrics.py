from __future__ import annotations

import math

import pytest

from loramill.experiments.metrics import flatten_metrics, has_a_best, lower_is_better


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


def test_what_a_run_used_makes_it_neither_better_nor_worse() -> None:
    judged = ["eval_accuracy", "eval_loss", "train_loss", "train_runtime", "train_samples_per_second", "auc"]
    used = ["system_disk_free_bytes_min", "system_cpu_percent_max", "train_best_step", "train_steps", "eval_samples"]
    assert [has_a_best(name) for name in judged + used] == [True] * len(judged) + [False] * len(used)
