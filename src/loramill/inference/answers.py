"""What logits mean: the label, its name and its probability, for every kind of problem."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loramill.engine.model_labels import ModelLabels

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
    """The answer that the logits of one text, ``[labels]``, stand for."""
    if labels.problem_type == "regression":
        return Answer(float(logits[0]), None, None)
    values = logits.astype(np.float64)
    if labels.problem_type == "multi_label_classification":
        chances = 1 / (1 + np.exp(-values))
        chosen = [int(index) for index in np.flatnonzero(chances > 0.5)]
        return Answer(chosen, [float(chances[index]) for index in chosen], [label_name(labels, i) for i in chosen])
    chances = np.exp(values - values.max())
    best = int(chances.argmax())
    return Answer(best, float(chances[best] / chances.sum()), label_name(labels, best))


def label_name(labels: ModelLabels, index: int) -> str:
    """The name of a class; its number where the model came without names."""
    return labels.label_names[index] if index < len(labels.label_names) else str(index)
