"""What a trial does next, as a function of its config, its rows and its step."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loramill.engine.step import LabelledTokens, StepResult
from loramill.engine.token_rows import TokenRows
from loramill.errors import ConfigError, NonFiniteLossError
from loramill.training.evaluation import best_metric_value, choosing_metric, measured_value
from loramill.training.trial import StepPlan, Trial
from saving_trial import SavingTrial, take
from small_models import random_adapter, save_small_model
from small_runs import small_config

MODEL = "unused"


@pytest.fixture(scope="module")
def saving(tmp_path_factory: pytest.TempPathFactory) -> SavingTrial:
    return SavingTrial(save_small_model("bert", tmp_path_factory.mktemp("bert")))


def trial_of(saving: SavingTrial, rows: int = 40, events: list[dict[str, Any]] | None = None, **changes: Any) -> Trial:
    tokens = TokenRows(np.full(rows, 5), np.zeros(rows, np.int64), np.arange(rows + 1))
    data = LabelledTokens(tokens, torch.zeros(rows, dtype=torch.long), "single_label_classification")
    emit = events.append if events is not None else lambda event: None
    return Trial(small_config(MODEL, MODEL, **changes), 0, saving.trial.adapter, data, emit)


def take_steps(trial: Trial, steps: int, loss: float = 1.0) -> list[list[int]]:
    """The rows of each step."""
    chosen = []
    for _ in range(steps):
        batch = trial.next_batch(4)
        chosen.append(batch.chosen.tolist())
        take(trial, StepResult(loss, len(batch.chosen), len(batch.chosen), len(batch.chosen)))
    return chosen


@given(st.integers(1, 500), st.integers(1, 33), st.integers(1, 4), st.floats(0.01, 5))
def test_plans_count_steps_as_the_trainer_does(rows: int, batch: int, accumulation: int, epochs: float) -> None:
    config = small_config(
        MODEL,
        MODEL,
        training__per_device_train_batch_size=batch,
        training__gradient_accumulation_steps=accumulation,
        training__num_train_epochs=epochs,
    )
    plan = StepPlan.of(config.training, rows)
    batches = math.ceil(rows / batch)
    updates = batches // accumulation + int(batches % accumulation > 0)
    assert plan.steps_per_epoch == updates
    assert plan.total_steps == math.ceil(epochs * updates)


def test_every_epoch_takes_every_row_once_in_another_order(saving: SavingTrial) -> None:
    trial = trial_of(saving, training__per_device_train_batch_size=8, training__gradient_accumulation_steps=2)
    steps = take_steps(trial, 9)
    assert [len(rows) for rows in steps] == [16, 16, 8] * 3
    epochs = [[row for rows in steps[first : first + 3] for row in rows] for first in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_depends_on_the_seed_alone(saving: SavingTrial) -> None:
    first, again, other = (take_steps(trial_of(saving, training__seed=seed), 6) for seed in (1, 1, 2))
    assert first == again != other
    late = trial_of(saving, training__seed=1)
    late.progress.step = 4
    assert take_steps(late, 2) == first[4:]


def test_dropout_masks_come_only_with_dropout(saving: SavingTrial) -> None:
    assert trial_of(saving).next_batch(4).dropout is not None  # the adapter of the fixture has dropout 0.1
    trial = trial_of(saving)
    trial.adapter = random_adapter(saving.base)
    assert trial.next_batch(4).dropout is None


def test_losses_are_averaged_between_log_lines(saving: SavingTrial) -> None:
    events: list[dict[str, Any]] = []
    trial = trial_of(saving, events=events, training__logging_steps=3, training__num_train_epochs=4)
    for loss in (3.0, 2.0, 1.0, 5.0, 4.0, 9.0, 7.0):
        take_steps(trial, 1, loss)
    logs = [event for event in events if event["type"] == "log"]
    assert [(event["step"], event["loss"]) for event in logs] == [(3, 2.0), (6, 6.0)]
    assert trial.progress.total_loss == 31.0


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_changes_nothing(loss: float, saving: SavingTrial) -> None:
    trial = trial_of(saving)
    before = trial.adapter.values.clone()
    with pytest.raises(NonFiniteLossError, match="loss of step 1"):
        take_steps(trial, 1, loss)
    assert torch.equal(trial.adapter.values, before)
    assert trial.progress.step == 0


def test_a_gradient_that_is_not_finite_changes_nothing(saving: SavingTrial) -> None:
    trial = trial_of(saving)
    before = trial.adapter.values.clone()
    trial.adapter.grads[3] = math.nan
    with pytest.raises(NonFiniteLossError, match="gradient of step 1"):
        take_steps(trial, 1)
    assert torch.equal(trial.adapter.values, before)


def test_patience_counts_evaluations_without_a_gain(saving: SavingTrial) -> None:
    trial = trial_of(saving, training__early_stopping_patience=2)
    for accuracy, stopped in ((0.5, False), (0.4, False), (0.6, False), (0.6, False), (0.6, True)):
        take_steps(trial, 1)
        assert trial.judge({"accuracy": accuracy}) == accuracy
        assert trial.finished is stopped
    assert (trial.progress.best, trial.progress.best_step) == (0.6, 3)


@pytest.mark.parametrize(("name", "values", "best"), [("loss", (0.9, 0.4, 0.5), 0.4), ("auc", (0.9, 0.4, 0.5), 0.9)])
def test_trainer_state_has_the_best_metric_as_it_was_measured(
    name: str, values: tuple[float, ...], best: float, saving: SavingTrial
) -> None:
    trial = trial_of(saving, training__metric_for_best_model=name)
    for value in values:
        take_steps(trial, 1)
        trial.judge({name: value})
    assert trial.trainer_state()["best_metric"] == best


def test_correlations_below_zero_keep_their_sign() -> None:
    assert measured_value(best_metric_value({"pearson": -0.3}, "pearson"), "pearson") == -0.3
    assert measured_value(best_metric_value({"mse": 0.3}, "eval_mse"), "eval_mse") == 0.3


def test_less_is_better_where_it_is() -> None:
    assert best_metric_value({"loss": 0.2}, "eval_loss") > best_metric_value({"loss": 0.3}, "loss")
    assert best_metric_value({"f1_macro": 0.2}, "f1_macro") < best_metric_value({"f1_macro": 0.3}, "f1_macro")


def test_regression_is_judged_by_its_loss_unless_told_otherwise() -> None:
    assert choosing_metric("accuracy", "regression") == "loss"
    assert choosing_metric("eval_pearson", "regression") == "eval_pearson"
    assert choosing_metric("accuracy", "multi_label_classification") == "accuracy"


@pytest.mark.parametrize(("name", "meant"), [("f1", "f1_macro"), ("eval_f1", "f1_macro"), ("eval_acuracy", "accuracy")])
def test_a_metric_that_is_not_measured_has_a_nearest_one(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean {meant}\?"):
        choosing_metric(name, "single_label_classification")


def test_progress_survives_a_checkpoint_exactly(saving: SavingTrial) -> None:
    trial, other = trial_of(saving), trial_of(saving)
    take_steps(trial, 5, loss=1 / 3)
    trial.judge({"accuracy": 0.1 + 0.2})
    state, history = json.loads(json.dumps([trial.progress_state(), trial.trainer_state()["log_history"]]))
    other.restore_progress(state, history)
    assert other.progress == trial.progress
