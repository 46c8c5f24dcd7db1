from __future__ import annotations

import statistics
from collections.abc import Iterator

import pytest

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import ConfigError
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.store import ExperimentStore, NewExperiment

RUNS = {"a": ("bert", 0.8, 10.0), "b": ("bert", 0.9, 30.0), "c": ("roberta", 0.7, 20.0), "d": ("roberta", None, None)}


@pytest.fixture
def store(database: Database) -> Iterator[ExperimentStore]:
    with database.transaction() as session:
        store = ExperimentStore(session)
        for experiment_id, (model, accuracy, runtime) in RUNS.items():
            config = ExperimentConfig.model_validate({"model": {"name": model}})
            store.create(NewExperiment.from_config(experiment_id, config))
            if accuracy is None:
                store.mark_failed(experiment_id, "x", "")
            else:
                metrics = {"train": {"runtime": runtime}, "eval": {"accuracy": accuracy, "loss": 1 - accuracy}}
                store.mark_finished(experiment_id, metrics)
        yield store


def test_totals(store: ExperimentStore) -> None:
    totals = store.statistics()
    assert (totals.total, totals.by_status) == (4, {"SUCCESS": 3, "FAILURE": 1})
    assert totals.best_accuracy == 0.9
    assert totals.mean_accuracy == pytest.approx(0.8)
    assert (totals.mean_runtime, totals.total_runtime) == (20.0, 60.0)
    assert store.statistics(ExperimentFilter(model_name="roberta")).total == 2
    assert store.statistics(ExperimentFilter(owner="nobody")).best_accuracy is None


def test_by_model(store: ExperimentStore) -> None:
    bert, roberta = store.statistics_by("model_name")
    assert (bert.group, bert.runs, bert.finished, bert.count, bert.best_id) == ("bert", 2, 2, 2, "b")
    assert (bert.mean, bert.smallest, bert.largest) == (pytest.approx(0.85), 0.8, 0.9)
    assert bert.deviation == pytest.approx(statistics.pstdev([0.8, 0.9]))
    assert bert.mean_runtime == 20.0
    assert (roberta.group, roberta.runs, roberta.finished, roberta.count, roberta.best_id) == ("roberta", 2, 1, 1, "c")


def test_the_best_loss_is_the_smallest(store: ExperimentStore) -> None:
    bert, _ = store.statistics_by("model_name", "eval_loss")
    assert (bert.best_id, bert.smallest) == ("b", pytest.approx(0.1))
    by_name = {line.metric: line for line in store.metric_statistics()}
    assert by_name["eval_loss"].best_id == "b"
    assert by_name["eval_accuracy"].best_id == "b"
    assert by_name["train_runtime"].best_id == "a"


def test_a_metric_that_nobody_has(store: ExperimentStore) -> None:
    bert, _ = store.statistics_by("model_name", "eval_auc")
    assert (bert.count, bert.mean, bert.deviation, bert.best_id) == (0, None, None, None)


def test_metrics_are_spread_over_the_runs_that_pass(store: ExperimentStore) -> None:
    [accuracy, _, runtime] = store.metric_statistics(ExperimentFilter(model_name="bert"))
    assert (accuracy.metric, accuracy.count, accuracy.deviation) == ("eval_accuracy", 2, pytest.approx(0.05))
    assert (runtime.metric, runtime.smallest, runtime.largest) == ("train_runtime", 10.0, 30.0)
    assert (accuracy.best_id, runtime.best_id) == ("b", "a")


def test_no_run_is_best_by_what_it_used(store: ExperimentStore) -> None:
    store.record_metrics("d", {"system": {"disk_free_bytes_min": 5, "steps": 2}, "train": {"samples": 9}})
    used = [line for line in store.metric_statistics() if line.metric.startswith(("system", "train_samples"))]
    assert [(line.metric, line.best_id) for line in used] == [
        ("system_disk_free_bytes_min", None),
        ("system_steps", None),
        ("train_samples", None),
    ]


def test_unknown_groups_are_refused(store: ExperimentStore) -> None:
    with pytest.raises(ConfigError, match="model_name"):
        store.statistics_by("colour")
