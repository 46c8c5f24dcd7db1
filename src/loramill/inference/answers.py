"""What logits mean: the label, its name and its probability, for every kind of problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loramill.engine.model_labels import ModelLabels
from loramill.errors import NonFiniteAnswerError

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """The answer for one text.

    Attributes:
        label: the class (single label); every class above 0.5 (multi-label); or the value (regression).
        probability: of the label or of each label; ``None`` for regression, which has none.
        label_name: as in the training data, beside ``label``; ``None`` for regression.
    """

    label: int | float | list[int]
    probability: float | list[float] | None
    label_name: str | list[str] | None


def read_answer(logits: Logits, labels: ModelLabels) -> Answer:
    """The answer that the logits of one text, ``[labels]``, stand for.

    Plain floats: for the few labels that models have, they are ten times as fast as arrays.

    Raises:
        NonFiniteAnswerError: a logit is NaN or infinite.
    """
    values: list[float] = logits.tolist()
    if not all(map(math.isfinite, values)):
        raise NonFiniteAnswerError(
            "The model gave no finite answer for this text.", fix="Serve it in float32: --precision float32."
        )
    if labels.problem_type == "regression":
        return Answer(values[0], None, None)
    if labels.problem_type == "multi_label_classification":
        chosen = [index for index, value in enumerate(values) if value > 0]
        chances = [1 / (1 + math.exp(-values[index])) for index in chosen]
        return Answer(chosen, chances, [label_name(labels, index) for index in chosen])
    highest = max(values)
    best = values.index(highest)
    return Answer(best, 1 / math.fsum(math.exp(value - highest) for value in values), label_name(labels, best))


def label_name(labels: ModelLabels, index: int) -> str:
    """The name of a class; its number where the model came without names."""
    return labels.label_names[index] if index < len(labels.label_names) else str(index)
