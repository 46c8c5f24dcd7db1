"""Confident learning finds planted label errors, and finds more of them than the plain loss."""

from __future__ import annotations

import numpy as np
import pytest

from loramill.data.suspects import blend, class_thresholds, precision_at, rank_by_loss, rank_suspects


def noisy_problem(
    seed: int, rows: int = 4000, classes: int = 4, flipped: float = 0.1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(probabilities of a fair but over-confident model in some classes, given labels, which are wrong)."""
    random = np.random.RandomState(seed)
    truth = random.randint(0, classes, rows)
    scores = random.normal(0, 1, (rows, classes))
    scores[np.arange(rows), truth] += 2.0
    scores[:, 0] += 1.0  # the model leans to class 0: its thresholds differ from class to class
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    wrong = random.random_sample(rows) < flipped
    labels = np.where(wrong, (truth + random.randint(1, classes, rows)) % classes, truth)
    return probabilities, labels, wrong


@pytest.mark.parametrize("seed", range(5))
def test_planted_errors_rank_first(seed: int) -> None:
    probabilities, labels, wrong = noisy_problem(seed)
    ranking = rank_suspects(probabilities, labels)
    k = int(wrong.sum())
    assert precision_at(ranking.rows, wrong, k) > 0.6
    assert precision_at(ranking.rows, wrong, k) > precision_at(rank_by_loss(probabilities, labels), wrong, k)


def test_two_opinions_find_more_than_either() -> None:
    first, labels, wrong = noisy_problem(3, classes=2)
    truth = np.where(wrong, 1 - labels, labels)
    random = np.random.RandomState(4)
    second = random.normal(0, 1, (len(labels), 2))
    second[np.arange(len(labels)), truth] += 1.5
    blended = blend([np.log(first), 30 * second], labels)  # the second one is far too sure of itself
    assert np.allclose(blended.sum(axis=1), 1)
    k = int(wrong.sum())
    found = [precision_at(rank_suspects(one, labels).rows, wrong, k) for one in (blended, first, softmax(second))]
    assert found[0] > max(found[1:]) + 0.05
    assert log_loss(blended, labels) < min(log_loss(first, labels), log_loss(softmax(second), labels))


def test_an_opinion_that_is_noise_or_the_contrary_is_left_out() -> None:
    chances, labels, _ = noisy_problem(5, classes=3)
    noise = np.random.RandomState(6).normal(0, 5, chances.shape)
    alone = blend([np.log(chances)], labels)
    assert np.abs(blend([np.log(chances), noise], labels) - alone).max() < 0.05
    assert log_loss(blend([np.log(chances), -np.log(chances) + noise], labels), labels) < log_loss(chances, labels)
    assert np.isfinite(blend([np.zeros((4, 2)), np.zeros((4, 2))], np.asarray([0, 1, 0, 1]))).all()


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def log_loss(chances: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(chances[np.arange(len(labels)), labels]).mean())


def test_every_row_is_ranked_once_with_its_values() -> None:
    probabilities, labels, _ = noisy_problem(1, rows=200)
    ranking = rank_suspects(probabilities, labels)
    thresholds = class_thresholds(probabilities, labels)
    assert sorted(ranking.rows.tolist()) == list(range(200))
    assert (np.diff(ranking.scores) >= 0).all()
    for position in (0, 57, 199):
        row = ranking.rows[position]
        others = [(value, number) for number, value in enumerate(probabilities[row]) if number != labels[row]]
        assert ranking.suggested[position] == max(others)[1]
        assert ranking.scores[position] == pytest.approx(probabilities[row, labels[row]] - thresholds[labels[row]])


def test_the_thresholds_are_those_of_the_paper() -> None:
    probabilities = np.asarray([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6], [0.2, 0.8]])
    labels = np.asarray([0, 0, 1, 1])
    assert class_thresholds(probabilities, labels).tolist() == pytest.approx([0.8, 0.7])
    swapped = np.asarray([1, 0, 1, 1])  # the first row is surely a 0: t0 = 0.7, t1 = 0.5
    assert rank_suspects(probabilities, swapped).rows[0] == 0
    assert rank_suspects(probabilities, swapped).is_issue.tolist() == [True, False, False, False]


def test_a_class_that_no_row_has_is_never_confident() -> None:
    probabilities = np.asarray([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    ranking = rank_suspects(probabilities, np.asarray([0, 0, 1]))
    assert not ranking.is_issue.any()
    assert ranking.rows[0] == 0


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [
        (np.ones((3, 2)) / 2, np.asarray([0, 1])),
        (np.ones((2, 2)) / 2, np.asarray([0, 2])),
        (np.ones((2, 1)), np.asarray([0, 0])),
        (np.full((2, 2), np.nan), np.asarray([0, 1])),
    ],
)
def test_what_does_not_fit_together_is_refused(probabilities: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"fit|column|finite"):
        rank_suspects(probabilities, labels)
