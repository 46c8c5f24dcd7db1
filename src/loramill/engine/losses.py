"""The loss of every row, by kind of problem, as Transformers computes it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


def row_losses(logits: Tensor, labels: Tensor, problem_type: ProblemType) -> Tensor:
    """Loss of each row, ``[rows]``; its mean is the loss of a batch.

    Args:
        logits: ``[rows, labels]``.
        labels: classes int64 ``[rows]``; or float ``[rows, labels]`` of 0 and 1 (multi-label); or float ``[rows]``.
    """
    if problem_type == "single_label_classification":
        return F.cross_entropy(logits, labels, reduction="none")
    if problem_type == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(1)
    return F.mse_loss(logits.squeeze(1), labels.to(logits.dtype), reduction="none")


def probabilities(logits: Tensor, problem_type: ProblemType) -> Tensor:
    """``[rows, labels]``: softmax over classes, a sigmoid per label, or the value itself for regression."""
    if problem_type == "single_label_classification":
        return torch.softmax(logits, 1)
    return torch.sigmoid(logits) if problem_type == "multi_label_classification" else logits
