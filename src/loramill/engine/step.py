"""Gradients of one optimizer step, and predictions: what training, sweeps and serving ask of the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from loramill.engine.bank import AdapterBank, DropoutStream
from loramill.engine.batching import IntArray, TokenRows, batches_of_tokens, build_batch
from loramill.engine.forward import classify
from loramill.engine.losses import ProblemType, row_losses

PACKED_TOKENS = 16_384
"""Tokens of a training pass that micro-batches of several adapters share, where the device wants large passes."""

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

    def take(self, chosen: IntArray) -> LabelledTokens:
        """Some of the rows, in the order given."""
        return LabelledTokens(self.rows.take(chosen), self.labels[torch.from_numpy(chosen)], self.problem_type)


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

    def plus(self, other: StepResult) -> StepResult:
        return StepResult(
            self.loss + other.loss,
            self.rows + other.rows,
            self.tokens + other.tokens,
            self.padded_tokens + other.padded_tokens,
        )


@dataclass(frozen=True)
class _Piece:
    """A micro-batch of one adapter: ``work`` is the place of its batch in the step."""

    work: int
    item: AdapterBatch
    chosen: IntArray

    @property
    def tokens(self) -> int:
        return int(self.item.source.rows.lengths[self.chosen].sum())


def accumulate_gradients(
    bank: AdapterBank, work: Sequence[AdapterBatch], *, packed_tokens: int | None = None
) -> list[StepResult]:
    """Add the gradient of each adapter's mean loss to its ``grads``.

    The micro-batches of one adapter are summed, weighted by rows: however they are cut, the gradient is that of the
    whole batch.

    Args:
        packed_tokens: micro-batches share a forward pass up to so many tokens. By default the CPU takes one at a time,
            as one fills it already and stays in its caches; other devices pack.
    """
    budget = packed_tokens if packed_tokens is not None else (0 if bank.base.device.type == "cpu" else PACKED_TOKENS)
    totals = [StepResult(0.0, 0, 0, 0) for _ in work]
    for pieces in _passes(_cut(work), budget):
        for piece, result in zip(pieces, _backward(bank, pieces), strict=True):
            totals[piece.work] = totals[piece.work].plus(result)
    return totals


def _cut(work: Sequence[AdapterBatch]) -> list[_Piece]:
    """Micro-batches in rounds: the first of every adapter, then the second, and so on."""
    rounds = []
    for place, item in enumerate(work):
        chosen = item.source.rows.sorted_by_length(item.chosen)
        for number, first in enumerate(range(0, len(chosen), item.micro_rows)):
            rounds.append((number, _Piece(place, item, chosen[first : first + item.micro_rows])))
    return [piece for _, piece in sorted(rounds, key=lambda numbered: numbered[0])]


def _passes(pieces: Sequence[_Piece], budget: int) -> Iterator[list[_Piece]]:
    """Neighbouring pieces up to a budget of tokens, at least one at a time.

    No pass holds two of the same adapter: its dropout masks are then drawn in the same order as alone.
    """
    current: list[_Piece] = []
    for piece in pieces:
        full = sum(other.tokens for other in current) + piece.tokens > budget
        if current and (full or any(other.work == piece.work for other in current)):
            yield current
            current = []
        current.append(piece)
    if current:
        yield current


def _backward(bank: AdapterBank, pieces: Sequence[_Piece]) -> list[StepResult]:
    parts = [(piece.item.adapter, piece.item.source.rows, piece.chosen) for piece in pieces]
    batch = build_batch(parts, device=bank.base.device)
    dropout = {piece.item.adapter: piece.item.dropout for piece in pieces if piece.item.dropout}
    losses = [_loss(logits, piece) for logits, piece in zip(classify(bank, batch, dropout), pieces, strict=True)]
    torch.stack(losses).sum().backward()
    padding = batch.padded_tokens / batch.tokens
    return [
        StepResult(float(loss.detach()), len(piece.chosen), piece.tokens, round(piece.tokens * padding))
        for loss, piece in zip(losses, pieces, strict=True)
    ]


def _loss(logits: Tensor, piece: _Piece) -> Tensor:
    """The piece's share of its batch's mean loss."""
    source = piece.item.source
    labels = source.labels[torch.from_numpy(piece.chosen)].to(logits.device)
    return row_losses(logits, labels, source.problem_type).sum() / len(piece.item.chosen)


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
