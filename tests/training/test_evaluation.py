"""What an evaluation measures, and the predictions that it leaves for comparisons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from loramill.data.prepare import LabelledRows
from loramill.engine.bank import AdapterBank
from loramill.engine.step import LabelledTokens, predict_logits
from loramill.engine.token_rows import TokenRows
from loramill.errors import ConfigError, DiskFullError, NonFiniteLossError
from loramill.training.evaluation import (
    Evaluation,
    best_metric_value,
    check_defined,
    evaluate,
    write_predictions,
)
from small_models import random_adapter, save_small_model, small_base

ROWS = TokenRows(np.array([2, 5, 3, 2, 6, 7, 3, 2, 3]), np.zeros(9, np.int64), np.array([0, 3, 7, 9]))
SOURCE = LabelledRows(["b", "c d", "e" * 5000], None, np.zeros(3, np.int64), np.array([7, 3, 5]), np.arange(3))
CASES = {
    "single_label_classification": (3, torch.tensor([2, 0, 1])),
    "multi_label_classification": (2, torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])),
    "regression": (1, torch.tensor([0.5, -1.0, 2.0])),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model("bert", tmp_path_factory.mktemp("bert"))


def evaluated(model: Path, problem_type: str) -> tuple[Evaluation, LabelledTokens, torch.Tensor]:
    width, labels = CASES[problem_type]
    bank = AdapterBank(base := small_base(model), [random_adapter(base, labels=width)])
    data = LabelledTokens(ROWS, labels, problem_type)
    return evaluate(bank, 0, data, [f"class {n}" for n in range(width)]), data, predict_logits(bank, 0, ROWS)


@pytest.mark.parametrize("problem_type", CASES)
def test_the_loss_is_the_mean_of_the_rows_and_everything_is_a_json_value(problem_type: str, model: Path) -> None:
    evaluation, data, logits = evaluated(model, problem_type)
    assert torch.equal(evaluation.logits, logits)
    assert evaluation.losses.shape == (3,)
    assert evaluation.metrics["loss"] == pytest.approx(float(evaluation.losses.mean()))
    assert evaluation.metrics["samples"] == len(data) == 3


@pytest.mark.parametrize("problem_type", CASES)
def test_predictions_can_be_read_row_by_row(problem_type: str, model: Path, tmp_path: Path) -> None:
    evaluation, data, _ = evaluated(model, problem_type)
    write_predictions(tmp_path / "predictions.parquet", evaluation, data, SOURCE)
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [row["row"] for row in rows] == [7, 3, 5]
    assert [row["position"] for row in rows] == [0, 1, 2]
    assert [row["text"] for row in rows[:2]] == ["b", "c d"]
    assert len(rows[2]["text"]) < 5000
    for row, label, chances, loss in zip(rows, data.labels, evaluation.probabilities, evaluation.losses, strict=True):
        assert row["label"] == label.tolist()
        assert row["probabilities"] == pytest.approx(chances.tolist())
        assert row["loss"] == pytest.approx(float(loss))
        if problem_type == "single_label_classification":
            assert row["prediction"] == int(chances.argmax())
        elif problem_type == "multi_label_classification":
            assert row["prediction"] == (chances > 0.5).int().tolist()
        else:
            assert row["prediction"] == pytest.approx(float(chances[0]))


def test_predictions_on_a_full_disk_are_named(model: Path, tmp_path: Path) -> None:
    evaluation, data, _ = evaluated(model, "single_label_classification")
    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full here")
    full = tmp_path / "predictions.parquet"
    full.symlink_to("/dev/full")  # the writer removes what it could not write, the device itself if it may
    with pytest.raises(DiskFullError):
        write_predictions(full, evaluation, data, SOURCE)


def test_logits_that_are_not_finite_are_named(model: Path) -> None:
    base = small_base(model)
    adapter = random_adapter(base)
    adapter.head["classifier"].bias.data[1] = float("nan")
    data = LabelledTokens(ROWS, CASES["single_label_classification"][1], "single_label_classification")
    with pytest.raises(NonFiniteLossError, match="3 of 3 rows"):
        evaluate(AdapterBank(base, [adapter]), 0, data, ["a", "b", "c"])


@pytest.mark.parametrize(("metric", "kind"), [("eval_auc", "single_label_classification"), ("pearson", "regression")])
def test_a_metric_that_the_rows_leave_undefined_is_named_before_training(metric: str, kind: str) -> None:
    _, labels = CASES[kind]
    check_defined(metric, LabelledTokens(ROWS, labels, kind))
    alike = LabelledTokens(ROWS, labels[:1].repeat(3), kind)
    with pytest.raises(ConfigError, match="same label"):
        check_defined(metric, alike)
    check_defined("loss", alike)


def test_predictions_that_are_all_the_same_correlate_with_nothing() -> None:
    assert best_metric_value({"pearson": None, "loss": 0.5}, "eval_pearson") == 0.0
