"""Which rows are probably mislabelled: confident learning on out-of-fold probabilities.

Northcutt, Jiang, Chuang (2021): Confident learning, estimating uncertainty in dataset labels. Journal of Artificial
Intelligence Research 70, arXiv:1911.00068. The probabilities must come from models that did not train on the row: a
model that did has learned its wrong label. Two different kinds of model, blended, find more than either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float32] | NDArray[np.float64]
Labels = NDArray[np.int64]
NEWTON_STEPS = 30
RIDGE = 1e-6


@dataclass(frozen=True)
class Suspects:
    """Every row, the most suspicious first.

    Attributes:
        rows: row numbers ``[rows]``, in order of suspicion.
        scores: probability of the given label less that class's threshold, of these rows ``[rows]``; low is suspicious.
        suggested: the likeliest other label of these rows ``[rows]``.
        is_issue: rows that the confident joint counts as mislabelled, of these rows ``[rows]``.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    suggested: NDArray[np.int64]
    is_issue: NDArray[np.bool_]


def rank_suspects(probabilities: Probabilities, labels: Labels) -> Suspects:
    """Rank rows by self-confidence, measured from what is usual for their class.

    A class that the model seldom believes in would fill the ranking with its correct rows; its threshold takes that
    out. Where the model leans to a class, this finds more than the plain loss.

    Args:
        probabilities: out of fold, ``[rows, classes]``, each row summing to 1.
        labels: given labels ``[rows]``, class numbers.

    Raises:
        ValueError: shapes or values do not fit together.
    """
    confidence = np.asarray(probabilities, dtype=np.float64)
    _check(confidence, labels)
    rows = np.arange(len(labels))
    others = confidence.copy()
    others[rows, labels] = -np.inf
    scores = confidence[rows, labels] - class_thresholds(confidence, labels)[labels]
    order = np.argsort(scores, kind="stable")
    is_issue = _off_diagonal(confidence, labels)
    return Suspects(order, scores[order], others.argmax(axis=1)[order], is_issue[order])


def blend(views: Sequence[NDArray[np.float64]], labels: Labels) -> NDArray[np.float64]:
    """One opinion from several: their product, each to the power that makes the given labels likeliest.

    Stacking (Wolpert 1992, Stacked generalization) with one weight a view. It also takes back what a view exaggerates:
    naive Bayes is far too sure of itself.

    Args:
        views: out-of-fold log-probabilities, or logits, ``[rows, classes]`` each.

    Returns:
        Probabilities ``[rows, classes]``.
    """
    scores = np.stack([view - view.mean(axis=1, keepdims=True) for view in views])  # [views, rows, classes]
    given = scores[:, np.arange(len(labels)), labels]
    weights = np.full(len(views), 1.0 / len(views) / max(1e-9, float(scores.std())))
    for _ in range(NEWTON_STEPS):
        chances = _softmax(np.tensordot(weights, scores, 1))
        expected = (scores * chances).sum(axis=2)
        gradient = (expected - given).mean(axis=1)
        centred = scores - expected[:, :, None]
        curvature = np.einsum("vrc,urc,rc->vu", centred, centred, chances) / len(labels)
        step = np.linalg.solve(curvature + RIDGE * np.eye(len(views)), gradient)
        weights = weights - step
        if np.abs(step).max() < RIDGE:
            break
    return _softmax(np.tensordot(np.maximum(weights, 0.0), scores, 1))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalised: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return normalised


def rank_by_loss(probabilities: Probabilities, labels: Labels) -> NDArray[np.int64]:
    """Rows by falling cross-entropy of the given label: the plain ranking that confident learning is held against."""
    scores = np.asarray(probabilities, dtype=np.float64)
    _check(scores, labels)
    return np.argsort(scores[np.arange(len(labels)), labels], kind="stable")


def precision_at(ranking: NDArray[np.int64], wrong: NDArray[np.bool_], k: int) -> float:
    """Share of the first ``k`` rows of a ranking that are really wrong (``wrong``: ``[rows]``)."""
    return float(wrong[ranking[:k]].mean()) if k else 0.0


def class_thresholds(scores: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    """Mean confidence of each class in the rows labelled so ``[classes]`` (equation 2 of the paper).

    A class without rows gets a threshold that nothing reaches.
    """
    thresholds = np.full(scores.shape[1], np.inf)
    for label in np.unique(labels):
        thresholds[label] = scores[labels == label, label].mean()
    return thresholds


def _off_diagonal(scores: NDArray[np.float64], labels: Labels) -> NDArray[np.bool_]:
    """Rows that the confident joint (equation 1) counts under another class than their label's."""
    confident = scores >= class_thresholds(scores, labels)
    likeliest = np.where(confident, scores, -np.inf).argmax(axis=1)
    off_diagonal: NDArray[np.bool_] = confident.any(axis=1) & (likeliest != labels)
    return off_diagonal


def _check(scores: NDArray[np.float64], labels: Labels) -> None:
    if scores.ndim != 2 or scores.shape[0] != len(labels) or scores.shape[1] < 2:
        raise ValueError(f"probabilities {scores.shape} and labels {labels.shape} do not fit together")
    if len(labels) and (labels.min() < 0 or labels.max() >= scores.shape[1]):
        raise ValueError("a label is no column of the probabilities")
    if not np.isfinite(scores).all():
        raise ValueError("a probability is not finite")
