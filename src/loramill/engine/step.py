"""Gradients of one optimizer step, and predictions: what training, sweeps and serving ask of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.engine.dropout import DropoutSeed, DropoutStream
from loramill.engine.forward import classify
from loramill.engine.lanes import LANE_TOKENS, lane_count, run_in_lanes
from loramill.engine.losses import ProblemType, row_losses
from loramill.engine.token_rows import IntArray, TokenRows, batches_of_tokens

PACKED_TOKENS = 32_768
"""Tokens of a training pass that micro-batches of several adapters share, where the device wants large passes."""

PASSES_FOR_A_LANE = 4
"""So many passes in a row go without waiting for the other lanes; their gradients wait in memory to be summed."""

ATTENTION_LENGTH = 384
"""Length in tokens of a text whose attention takes as long as all else; measured, as small products are slow."""

PREDICTION_TOKENS = 4096
"""Tokens of one forward pass without gradients: large enough for the GEMM roof, small enough for a laptop."""

WIDE_PREDICTION_TOKENS = 32_768
"""The same where a pass costs its calls first."""


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
        micro_rows: at most so many of them are in memory at a time.
        dropout: where the masks of this step come from; ``None`` without dropout.
    """

    adapter: int
    source: LabelledTokens
    chosen: IntArray
    micro_rows: int
    dropout: DropoutSeed | None


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
class Piece:
    """Rows of one adapter that go through one forward pass.

    Attributes:
        work: place of the adapter's batch in the step.
        number: place within that batch.
        chosen: int64 ``[n]``, rows of the adapter's source, together so many ``tokens``.
        batch_rows: rows of the whole batch.
        dropout: see ``AdapterBatch``.
    """

    work: int
    number: int
    adapter: int
    chosen: IntArray
    tokens: int
    batch_rows: int
    dropout: DropoutSeed | None


Pass = list[Piece]
Sources = Mapping[int, LabelledTokens]
"""Adapter -> the rows that it learns from."""

Gradients = tuple[list[StepResult], list[tuple[Tensor, Tensor]]]
"""What each piece of a pass saw, and (where gradients of some values are summed, their gradients)."""


def accumulate_gradients(
    bank: AdapterBank,
    work: Sequence[AdapterBatch],
    *,
    packed_tokens: int | None = None,
    run_passes: Callable[[Sequence[Pass]], list[Gradients]] | None = None,
) -> list[StepResult]:
    """Add the gradient of each adapter's mean loss to its ``grads``.

    The pieces of one adapter are summed in order, weighted by rows: however they are cut, the gradient is that of the
    whole batch. How a batch is cut depends on its rows and the number of threads alone, not on the adapters beside it.

    Args:
        packed_tokens: pieces share a forward pass up to so many tokens; by default what the device likes.
        run_passes: does some passes of one piece each side by side, see ``StepCopies``; by default threads do.
    """
    budget = packed_tokens if packed_tokens is not None else packed_tokens_of(bank.base)
    lanes = lane_count() if bank.base.device.type == "cpu" and bank.base.reentrant else 1
    passes = list(_passes(_cut(work, lanes), budget))
    in_threads = partial(_run_in_threads, bank, {item.adapter: item.source for item in work})
    run = run_passes if run_passes and budget == 0 else in_threads
    together = PASSES_FOR_A_LANE * lanes if lanes > 1 else 1
    totals = [StepResult(0.0, 0, 0, 0) for _ in work]
    for first in range(0, len(passes), together):
        some = passes[first : first + together]
        for pieces, (results, gradients) in zip(some, run(some), strict=True):
            for piece, result in zip(pieces, results, strict=True):
                totals[piece.work] = totals[piece.work].plus(result)
            torch._foreach_add_([total for total, _ in gradients], [gradient for _, gradient in gradients])
    return totals


def _run_in_threads(bank: AdapterBank, sources: Sources, passes: Sequence[Pass]) -> list[Gradients]:
    return run_in_lanes([partial(gradients_of, bank, sources, pieces) for pieces in passes])


def packed_tokens_of(base: FrozenBase) -> int:
    """Tokens of a training pass that the base's device likes: the CPU's cores are full with one piece at a time."""
    return 0 if base.device.type == "cpu" else PACKED_TOKENS


def _cut(work: Sequence[AdapterBatch], lanes: int) -> list[Piece]:
    """Pieces in rounds: the first of every adapter, then the second, and so on."""
    pieces = []
    for place, item in enumerate(work):
        lengths = item.source.rows.lengths
        chosen = item.source.rows.sorted_by_length(item.chosen)
        micro_batches = [chosen[first : first + item.micro_rows] for first in range(0, len(chosen), item.micro_rows)]
        parts = [part for rows in micro_batches for part in _for_lanes(lengths[rows], rows, lanes)]
        pieces += [
            Piece(place, number, item.adapter, rows, int(lengths[rows].sum()), len(chosen), item.dropout)
            for number, rows in enumerate(parts)
        ]
    return sorted(pieces, key=lambda piece: piece.number)


def _for_lanes(lengths: IntArray, rows: IntArray, lanes: int) -> list[IntArray]:
    """Neighbouring rows for each lane, about equally much work."""
    count = min(lanes, len(rows), max(1, int(lengths.sum()) // LANE_TOKENS))
    if count == 1:
        return [rows]
    work = lengths * (1 + lengths / ATTENTION_LENGTH)
    middles = np.cumsum(work) - work / 2
    lane = np.minimum((middles * count / work.sum()).astype(np.int64), count - 1)
    return [part for part in np.split(rows, np.searchsorted(lane, np.arange(1, count))) if len(part)]


def _passes(pieces: Sequence[Piece], budget: int) -> Iterator[Pass]:
    """Neighbouring pieces up to a budget of tokens, at least one at a time, and none twice of the same adapter."""
    current: Pass = []
    tokens = 0
    for piece in pieces:
        if current and (tokens + piece.tokens > budget or any(other.work == piece.work for other in current)):
            yield current
            current, tokens = [], 0
        current.append(piece)
        tokens += piece.tokens
    if current:
        yield current


def gradients_of(bank: AdapterBank, sources: Sources, pieces: Pass) -> Gradients:
    """Forward and back, once, for some pieces together."""
    parts = [(piece.adapter, sources[piece.adapter].rows, piece.chosen) for piece in pieces]
    batch = bank.base.batch_of(parts)
    dropout = {
        piece.adapter: DropoutStream(piece.dropout, piece.number, bank.base.device) for piece in pieces if piece.dropout
    }
    losses = _losses(classify(bank, batch, dropout), sources, pieces)
    parameters = [parameter for piece in pieces for parameter in bank.adapters[piece.adapter].parameters]
    gradients = torch.autograd.grad(losses.sum(), parameters)
    padding = batch.padded_tokens / batch.tokens
    results = [
        StepResult(loss, len(piece.chosen), piece.tokens, round(piece.tokens * padding))
        for loss, piece in zip(losses.tolist(), pieces, strict=True)
    ]
    totals = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return results, [(total, gradient.contiguous()) for total, gradient in zip(totals, gradients, strict=True)]


def _losses(logits: Sequence[Tensor], sources: Sources, pieces: Pass) -> Tensor:
    """Each piece's share of its batch's mean loss, ``[pieces]``; alike problems are computed together."""
    types = [sources[piece.adapter].problem_type for piece in pieces]
    if len({(found.shape[1:], kind) for found, kind in zip(logits, types, strict=True)}) > 1:
        each = [_losses([found], sources, [piece]) for found, piece in zip(logits, pieces, strict=True)]
        return torch.cat(each)
    labels = torch.cat([sources[piece.adapter].labels[torch.from_numpy(piece.chosen)] for piece in pieces])
    device = logits[0].device
    losses = row_losses(torch.cat(list(logits)), labels.to(device), types[0])
    shares = torch.block_diag(
        *[torch.full((1, len(piece.chosen)), 1 / piece.batch_rows, dtype=losses.dtype) for piece in pieces]
    )
    return torch.mv(shares.to(device), losses)


def predict_logits(bank: AdapterBank, adapter: int, rows: TokenRows, *, token_budget: int | None = None) -> Tensor:
    """Logits of every row in order, ``[rows, labels]`` float32 on the CPU; batches hold similar lengths.

    Args:
        token_budget: tokens in memory at a time, unless a single row has more; by default what the device likes.
    """
    budget = token_budget or prediction_tokens(bank.base)
    labels = bank.adapters[adapter].spec.labels
    result = torch.empty(len(rows), labels, dtype=torch.promote_types(bank.base.dtype, torch.float32))
    lanes = lane_count() if bank.base.device.type == "cpu" and bank.base.reentrant else 1
    batches = batches_of_tokens(rows.lengths, max(1, budget // lanes))
    for first in range(0, len(batches), lanes):
        together = batches[first : first + lanes]
        found = run_in_lanes([partial(_predict, bank, adapter, rows, chosen) for chosen in together])
        for chosen, logits in zip(together, found, strict=True):
            result[torch.from_numpy(np.ascontiguousarray(chosen))] = logits
    return result


def prediction_tokens(base: FrozenBase) -> int:
    """Tokens of a forward pass without gradients that the base's device likes."""
    return PREDICTION_TOKENS if base.device.type == "cpu" else WIDE_PREDICTION_TOKENS


@torch.inference_mode()
def _predict(bank: AdapterBank, adapter: int, rows: TokenRows, chosen: IntArray) -> Tensor:
    batch = bank.base.batch_of([(adapter, rows, chosen)])
    (logits,) = classify(bank, batch)
    return logits.cpu()
