"""Gradients of one optimizer step, and predictions: what training, sweeps and serving ask of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from loramill.engine.bank import AdapterBank, DropoutStream
from loramill.engine.batching import IntArray, TokenRows, batches_of_tokens, build_batch
from loramill.engine.forward import NO_DROPOUT, classify
from loramill.engine.losses import ProblemType, row_losses

PREDICTION_TOKENS = 4096
"""Tokens of one forward pass without gradients: large enough for the GEMM roof, small enough for a laptop."""


@dataclass(frozen=True)
class LabelledTokens:
    """Rows to learn from or to be measured on.

    Attributes:
        labels: see ``row_losses``.
    """

    rows: TokenRows
    labels: Tensor
    problem_type: ProblemType

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class AdapterBatch:
    """The rows that one adapter learns from in one optimizer step.

    Attributes:
        chosen: int64 ``[n]``, rows of ``source``.
        micro_rows: at most so many of them go through one forward pass.
        dropout: masks of this step; ``None`` without dropout.
    """

    adapter: int
    source: LabelledTokens
    chosen: IntArray
    micro_rows: int
    dropout: DropoutStream | None


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step of an adapter saw: its mean loss, and how much work there was."""

    loss: float
    rows: int
    tokens: int
    padded_tokens: int


def accumulate_gradients(bank: AdapterBank, work: Sequence[AdapterBatch]) -> list[StepResult]:
    """Add the gradient of each adapter's mean loss to its ``grads``.

    The micro-batches of one adapter are summed, weighted by rows: however they are cut, the gradient is that of the
    whole batch.
    """
    totals = [StepResult(0.0, 0, 0, 0) for _ in work]
    for index, item in enumerate(work):
        chosen = item.source.rows.sorted_by_length(item.chosen)
        for first in range(0, len(item.chosen), item.micro_rows):
            totals[index] = _backward(bank, item, chosen[first : first + item.micro_rows], totals[index])
    return totals


def _backward(bank: AdapterBank, item: AdapterBatch, chosen: IntArray, total: StepResult) -> StepResult:
    batch = build_batch([(item.adapter, item.source.rows, chosen)], device=bank.base.device)
    dropout: Mapping[int, DropoutStream] = {item.adapter: item.dropout} if item.dropout else NO_DROPOUT
    (logits,) = classify(bank, batch, dropout)
    labels = item.source.labels[torch.from_numpy(chosen)].to(logits.device)
    loss = row_losses(logits, labels, item.source.problem_type).sum() / len(item.chosen)
    loss.backward()
    return StepResult(
        loss=total.loss + float(loss.detach()),
        rows=total.rows + batch.rows,
        tokens=total.tokens + batch.tokens,
        padded_tokens=total.padded_tokens + batch.padded_tokens,
    )


@torch.inference_mode()
def predict_logits(
    bank: AdapterBank, adapter: int, rows: TokenRows, *, token_budget: int = PREDICTION_TOKENS
) -> Tensor:
    """Logits of every row in order, ``[rows, labels]`` float32 on the CPU; batches hold similar lengths."""
    labels = bank.adapters[adapter].spec.labels
    result = torch.empty(len(rows), labels, dtype=torch.promote_types(bank.base.dtype, torch.float32))
    for chosen in batches_of_tokens(rows.lengths, token_budget):
        (logits,) = classify(bank, build_batch([(adapter, rows, chosen)], device=bank.base.device))
        result[torch.from_numpy(np.ascontiguousarray(chosen))] = logits.cpu()
    return result
