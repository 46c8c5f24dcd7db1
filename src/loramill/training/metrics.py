"""Evaluation metrics from logits, in NumPy.

scikit-learn would answer the same, after 1.5 s of imports in every run and every worker child; the tests hold each
number here against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]
CALIBRATION_BINS = 15
CLASSIFICATION = ("loss", "accuracy", "f1_macro", "precision_macro", "recall_macro", "auc", "log_loss", "ece")
MEASURED = {
    "single_label_classification": CLASSIFICATION,
    "multi_label_classification": (*CLASSIFICATION, "hamming_loss", "f1_micro"),
    "regression": ("loss", "mse", "mae", "pearson", "spearman"),
}
"""Kind of problem -> names of the numbers that an evaluation has, and that can choose the best checkpoint."""


def classification_metrics(probabilities: Floats, labels: Integers, label_names: Sequence[str]) -> dict[str, Any]:
    """Metrics of a single-label classifier.

    Args:
        probabilities: ``[rows, classes]``, rows sum to 1.
        labels: ``[rows]``.

    Returns:
        accuracy, macro averages, ``auc`` (binary, or one against the rest averaged over the classes that occur),
        ``log_loss``, ``ece``, ``confusion_matrix`` (rows true, columns predicted) and ``per_class``.
    """
    classes = probabilities.shape[1]
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(1)), 1)
    per_class = _per_class(confusion, label_names)
    occurring = [entry for entry in per_class.values() if entry["support"] or entry["predicted"]]
    return {
        "accuracy": float(np.trace(confusion) / len(labels)),
        **{
            f"{name}_macro": float(np.mean([entry[name] for entry in occurring]))
            for name in ("f1", "precision", "recall")
        },
        "auc": _mean_auc(probabilities, labels),
        "log_loss": log_loss(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
        "confusion_matrix": confusion.tolist(),
        "per_class": per_class,
    }


def multi_label_metrics(probabilities: Floats, labels: Floats, label_names: Sequence[str]) -> dict[str, Any]:
    """Metrics of independent labels at the threshold 0.5; ``accuracy`` counts rows with every label right.

    ``auc`` is the mean over the labels that some rows have and others lack; ``log_loss`` and ``ece`` take every label
    of every row as one decision between yes and no.

    Args:
        probabilities, labels: ``[rows, labels]``.
    """
    decisions = np.stack([1 - probabilities.ravel(), probabilities.ravel()], axis=1)
    decided = (labels > 0.5).ravel().astype(np.int64)
    truth, predicted = labels > 0.5, probabilities > 0.5
    hits = (truth & predicted).sum(0)
    per_class = {
        name: _rates(int(hit), int(true), int(said))
        for name, hit, true, said in zip(label_names, hits, truth.sum(0), predicted.sum(0), strict=True)
    }
    micro = _rates(int(hits.sum()), int(truth.sum()), int(predicted.sum()))
    return {
        "accuracy": float((truth == predicted).all(1).mean()),
        "hamming_loss": float((truth != predicted).mean()),
        "f1_micro": micro["f1"],
        **{
            f"{key}_macro": float(np.mean([e[key] for e in per_class.values()]))
            for key in ("f1", "precision", "recall")
        },
        "auc": _mean([area_under_curve(probabilities[:, at], truth[:, at]) for at in range(truth.shape[1])]),
        "log_loss": log_loss(decisions, decided),
        "ece": expected_calibration_error(decisions, decided),
        "per_class": per_class,
    }


def regression_metrics(values: Floats, labels: Floats) -> dict[str, Any]:
    """Errors of predicted ``values`` ``[rows]`` and their correlation with the ``labels`` ``[rows]``."""
    errors = values - labels
    varied = np.ptp(values) > 0 and np.ptp(labels) > 0
    return {
        "mse": float((errors**2).mean()),
        "mae": float(np.abs(errors).mean()),
        "pearson": float(np.corrcoef(values, labels)[0, 1]) if varied else None,
        "spearman": float(np.corrcoef(_ranks(values), _ranks(labels))[0, 1]) if varied else None,
    }


def log_loss(probabilities: Floats, labels: Integers) -> float:
    """Mean of ``-log p(true class)``, with p clipped away from 0."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, np.finfo(np.float64).eps, 1)).mean())


def expected_calibration_error(probabilities: Floats, labels: Integers, bins: int = CALIBRATION_BINS) -> float:
    """Gap between confidence and accuracy, averaged over equal bins of confidence (Guo et al., arXiv:1706.04599)."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(which, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def area_under_curve(scores: Floats, positive: npt.NDArray[np.bool_]) -> float | None:
    """Probability that a positive row scores above a negative one, ties counted half; ``None`` without both."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    rank_sum = float(_ranks(scores)[positive].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _mean_auc(probabilities: Floats, labels: Integers) -> float | None:
    if probabilities.shape[1] == 2:
        return area_under_curve(probabilities[:, 1], labels == 1)
    return _mean([area_under_curve(probabilities[:, at], labels == at) for at in range(probabilities.shape[1])])


def _mean(areas: Sequence[float | None]) -> float | None:
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None


def _ranks(values: Floats) -> Floats:
    """1-based ranks; equal values share the mean of their ranks."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[where]
    return ranks


def _per_class(confusion: Integers, label_names: Sequence[str]) -> dict[str, dict[str, float]]:
    support, predicted = confusion.sum(1), confusion.sum(0)
    return {
        name: _rates(int(confusion[index, index]), int(support[index]), int(predicted[index]))
        for index, name in enumerate(label_names)
    }


def _rates(hits: int, support: int, predicted: int) -> dict[str, float]:
    precision = hits / predicted if predicted else 0.0
    recall = hits / support if support else 0.0
    total = precision + recall
    f1 = 2 * precision * recall / total if total else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "support": support, "predicted": predicted}
