from __future__ import annotations

import numpy as np
import pytest
import torch

from loramill.engine.losses import ProblemType, probabilities
from loramill.engine.model_labels import ModelLabels
from loramill.errors import NonFiniteAnswerError
from loramill.inference.answers import Answer, read_answer

NAMES = ("red", "green", "blue")


def labels(problem_type: ProblemType, names: tuple[str, ...] = NAMES) -> ModelLabels:
    return ModelLabels(names, problem_type, "base", 8)


def logits(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_a_single_label_is_the_most_probable_class() -> None:
    answer = read_answer(logits(-1.0, 2.5, 0.5), labels("single_label_classification"))
    expected = probabilities(torch.tensor([[-1.0, 2.5, 0.5]]), "single_label_classification")[0, 1]
    assert (answer.label, answer.label_name) == (1, "green")
    assert answer.probability == pytest.approx(float(expected), abs=1e-6)


def test_several_labels_are_those_above_a_half() -> None:
    answer = read_answer(logits(0.5, -0.1, 3.0), labels("multi_label_classification"))
    expected = probabilities(torch.tensor([[0.5, 3.0]]), "multi_label_classification")[0].tolist()
    assert (answer.label, answer.label_name) == ([0, 2], ["red", "blue"])
    assert answer.probability == pytest.approx(expected, abs=1e-6)
    assert read_answer(logits(-1, -2, -3), labels("multi_label_classification")) == Answer([], [], [])


def test_a_regression_is_its_value() -> None:
    assert read_answer(logits(-2.5), labels("regression", ())) == Answer(-2.5, None, None)


def test_large_logits_do_not_overflow() -> None:
    assert read_answer(logits(3e38, -3e38, 0), labels("single_label_classification")).probability == 1.0
    assert read_answer(logits(3e38, -3e38, 0), labels("multi_label_classification")).probability == [1.0]


def test_a_class_without_a_name_has_its_number() -> None:
    assert read_answer(logits(0, 1), labels("single_label_classification", ())).label_name == "1"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_answer_that_is_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(NonFiniteAnswerError, match="float32"):
        read_answer(logits(0.0, value, 1.0), labels("single_label_classification"))
