"""Every metric against scikit-learn or SciPy, degenerate cases included."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics as oracle
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from loramill.training.metrics import (
    MEASURED,
    area_under_curve,
    classification_metrics,
    expected_calibration_error,
    log_loss,
    multi_label_metrics,
    regression_metrics,
)

Floats = npt.NDArray[np.float64]


@st.composite
def classified(draw: st.DrawFn) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Probabilities ``[rows, classes]`` with ties and certainties, and labels that need not cover the classes."""
    classes, rows = draw(st.integers(2, 5)), draw(st.integers(1, 40))
    weights = draw(arrays.arrays(np.float64, (rows, classes), elements=st.sampled_from([0.0, 0.5, 1.0, 1.5, 7.0])))
    weights[weights.sum(1) == 0] = 1
    labels = draw(arrays.arrays(np.int64, rows, elements=st.integers(0, classes - 1)))
    return weights / weights.sum(1, keepdims=True), labels


def names(classes: int) -> list[str]:
    return [f"class {index}" for index in range(classes)]


def measure(probabilities: Floats, labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    metrics = classification_metrics(probabilities, labels, names(probabilities.shape[1]))
    json.dumps(metrics, allow_nan=False)
    return metrics


@given(classified())
def test_counts_and_averages(case: tuple[Floats, npt.NDArray[np.int64]]) -> None:
    probabilities, labels = case
    classes = probabilities.shape[1]
    metrics, predicted = measure(probabilities, labels), probabilities.argmax(1)
    assert metrics["accuracy"] == pytest.approx(oracle.accuracy_score(labels, predicted))
    matrix = oracle.confusion_matrix(labels, predicted, labels=range(classes))
    assert metrics["confusion_matrix"] == matrix.tolist()
    means = oracle.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)[:3]
    assert (metrics["precision_macro"], metrics["recall_macro"], metrics["f1_macro"]) == pytest.approx(means)
    each = oracle.precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0)
    for index, entry in enumerate(metrics["per_class"].values()):
        found = (entry["precision"], entry["recall"], entry["f1"], entry["support"])
        assert found == pytest.approx(tuple(column[index] for column in each))
        assert entry["predicted"] == (predicted == index).sum()


@given(classified())
def test_log_loss(case: tuple[Floats, npt.NDArray[np.int64]]) -> None:
    probabilities, labels = case
    expected = oracle.log_loss(labels, probabilities, labels=range(probabilities.shape[1]))
    assert log_loss(probabilities, labels) == pytest.approx(expected, abs=1e-9)


@given(classified())
def test_area_under_curve(case: tuple[Floats, npt.NDArray[np.int64]]) -> None:
    probabilities, labels = case
    found = measure(probabilities, labels)["auc"]
    areas = []
    for index in range(probabilities.shape[1]):
        truth = labels == index
        if 0 < truth.sum() < len(labels):
            areas.append(oracle.roc_auc_score(truth, probabilities[:, index]))
            assert area_under_curve(probabilities[:, index], truth) == pytest.approx(areas[-1])
        else:
            assert area_under_curve(probabilities[:, index], truth) is None
    if probabilities.shape[1] == 2:
        areas = areas[1:]
    assert found == (pytest.approx(np.mean(areas)) if areas else None)


def test_area_of_several_classes_is_the_mean_of_one_against_the_rest() -> None:
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet(np.ones(4), 200), generator.integers(0, 4, 200)
    expected = oracle.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert measure(probabilities, labels)["auc"] == pytest.approx(expected)


@given(classified(), st.integers(1, 20))
def test_calibration_error_is_the_sum_over_bins(case: tuple[Floats, npt.NDArray[np.int64]], bins: int) -> None:
    probabilities, labels = case
    rows_of_bin: dict[int, list[int]] = {}
    for row, line in enumerate(probabilities):
        rows_of_bin.setdefault(min(int(max(line) * bins), bins - 1), []).append(row)
    error = 0.0
    for rows in rows_of_bin.values():
        confidence = sum(max(probabilities[row]) for row in rows) / len(rows)
        accuracy = sum(int(probabilities[row].argmax() == labels[row]) for row in rows) / len(rows)
        error += len(rows) / len(labels) * abs(confidence - accuracy)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(error, abs=1e-12)


def test_a_calibrated_classifier_has_a_small_error_and_a_sure_one_that_guesses_a_large_one() -> None:
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.5, 1, 50_000)
    probabilities = np.stack([1 - confidence, confidence], 1)
    labels = (generator.uniform(size=50_000) < confidence).astype(np.int64)
    assert expected_calibration_error(probabilities, labels) < 0.01
    sure = np.tile([0.0, 1.0], (50_000, 1))
    assert expected_calibration_error(sure, generator.integers(0, 2, 50_000)) == pytest.approx(0.5, abs=0.01)


@given(st.integers(1, 30), st.integers(1, 4), st.randoms(use_true_random=False))
def test_multi_label(rows: int, classes: int, random: Any) -> None:
    generator = np.random.default_rng(random.randint(0, 2**32))
    truth = generator.integers(0, 2, (rows, classes)).astype(np.float64)
    chances = generator.choice([0.0, 0.3, 0.5, 0.8, 1.0], (rows, classes))
    metrics = multi_label_metrics(chances, truth, names(classes))
    json.dumps(metrics, allow_nan=False)
    predicted = chances > 0.5
    assert metrics["accuracy"] == pytest.approx((predicted == (truth > 0.5)).all(1).mean())
    assert metrics["hamming_loss"] == pytest.approx((predicted != (truth > 0.5)).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn takes one label for a column of classes
        scores = {
            average: oracle.precision_recall_fscore_support(
                np.hstack([truth, np.zeros((rows, 1))]),
                np.hstack([predicted, np.zeros((rows, 1))]),
                labels=range(classes),
                average=average,
                zero_division=0,
            )
            for average in ("macro", "micro")
        }
    assert metrics["precision_macro"] == pytest.approx(scores["macro"][0])
    assert metrics["recall_macro"] == pytest.approx(scores["macro"][1])
    assert metrics["f1_macro"] == pytest.approx(scores["macro"][2])
    assert metrics["f1_micro"] == pytest.approx(scores["micro"][2])
    assert metrics["log_loss"] == pytest.approx(oracle.log_loss(truth.ravel(), chances.ravel(), labels=[0, 1]))
    varied = [label for label in range(classes) if 0 < truth[:, label].sum() < rows]
    areas = [oracle.roc_auc_score(truth[:, label], chances[:, label]) for label in varied]
    assert metrics["auc"] == (pytest.approx(np.mean(areas)) if varied else None)


def test_the_calibration_of_labels_counts_every_decision() -> None:
    chances = np.array([[0.9, 0.1], [0.9, 0.1]])
    assert multi_label_metrics(chances, np.array([[1.0, 0.0], [1.0, 0.0]]), names(2))["ece"] == pytest.approx(0.1)
    assert multi_label_metrics(chances, np.array([[0.0, 1.0], [0.0, 1.0]]), names(2))["ece"] == pytest.approx(0.9)


VALUES = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=40))
@example([(0.1, 1.0), (0.1, 2.0), (0.1, 3.0)])  # alike, but not their mean
@example([(1.0, 0.1), (2.0, 0.1), (3.0, 0.1)])
def test_regression(pairs: list[tuple[float, float]]) -> None:
    values, labels = np.array(pairs, dtype=np.float64).T
    metrics = regression_metrics(values, labels)
    json.dumps(metrics, allow_nan=False)
    assert metrics["mse"] == pytest.approx(oracle.mean_squared_error(labels, values))
    assert metrics["mae"] == pytest.approx(oracle.mean_absolute_error(labels, values))
    if len(set(values)) == 1 or len(set(labels)) == 1:
        assert metrics["pearson"] is metrics["spearman"] is None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy warns of nearly constant values
        pearson, spearman = stats.pearsonr(values, labels)[0], stats.spearmanr(values, labels)[0]
    assert metrics["spearman"] == pytest.approx(spearman, abs=1e-9)
    if not math.isnan(pearson):
        assert metrics["pearson"] == pytest.approx(pearson, abs=1e-6)


def test_the_names_that_can_choose_a_checkpoint_are_those_of_the_numbers_measured() -> None:
    two = np.array([[0.2, 0.8], [0.6, 0.4]])
    measured = {
        "single_label_classification": classification_metrics(two, np.array([0, 1]), names(2)),
        "multi_label_classification": multi_label_metrics(two, two.round(), names(2)),
        "regression": regression_metrics(two[:, 0], two[:, 1]),
    }
    for kind, metrics in measured.items():
        numbers = {"loss"} | {name for name, value in metrics.items() if isinstance(value, float)}
        assert numbers == set(MEASURED[kind])
