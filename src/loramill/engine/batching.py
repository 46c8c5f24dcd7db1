"""Batches without padding.

A batch is one flat sequence of tokens, the rows one after the other: every linear layer then works on real tokens
only, whatever the lengths. Only attention needs rows. Kernels of CUDA take them as they lie; elsewhere they stand in
buckets of similar length that are padded to the longest. On the CPU a bucket holds rows that differ little; where each
call costs more, buckets have a fixed size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from loramill.engine.token_rows import IntArray, PrefixStates, TokenRows, ranges

Attention = Literal["rows", "padded", "flat"]
"""How rows attend: in buckets of almost equal length, in padded buckets of a fixed size, or as they lie."""


@dataclass(frozen=True)
class Segment:
    """The part of a batch that belongs to one adapter: rows and tokens, half-open."""

    adapter: int
    first_row: int
    last_row: int
    first_token: int
    last_token: int


@dataclass(frozen=True)
class Bucket:
    """Rows that attend together; their places follow those of the bucket before.

    Attributes:
        rows: how many.
        width: places of every row, at least the tokens of the longest.
        padding: bool ``[rows, width]``, True at padding; ``None`` when all rows are equally long.
    """

    rows: int
    width: int
    padding: Tensor | None = None

    def attention_bias(self, heads: int) -> Tensor | None:
        """What is added to scores, ``[rows * heads, 1, width]``: minus infinity at padding; ``None`` without any."""
        if self.padding is None:
            return None
        if heads not in self._biases:  # every layer asks for the same
            bias = torch.zeros(self.padding.shape, device=self.padding.device).masked_fill_(self.padding, -math.inf)
            self._biases[heads] = bias.repeat_interleave(heads, 0)[:, None, :]
        return self._biases[heads]

    @cached_property
    def _biases(self) -> dict[int, Tensor]:
        return {}


@dataclass(frozen=True)
class Places:
    """Where the rows stand in buckets that do not take them in the order of the batch.

    Attributes:
        order: int64 ``[rows]``, the rows as the buckets take them.
        gather: int64 ``[places]``, the token at each place; padding, if there is any, repeats the row's first token.
        scatter: int64 ``[tokens + filler]``, the place of each token; filler reads any.
        padding: int64, the places that are padding.
    """

    order: Tensor
    gather: Tensor
    scatter: Tensor
    padding: Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of one or several adapters, as the forward pass takes them.

    Attributes:
        token_ids, type_ids, positions: int64 ``[tokens]``.
        first_tokens: int64 ``[rows]``, where each row starts; the first token is what the heads pool.
        segments: one for each adapter, in order, covering all rows.
        longest: tokens of the longest row.
        attention: how the rows attend.
        buckets: a partition of the rows for attention; none where they attend as they lie.
        places: how tokens and buckets map; ``None`` when the buckets are the tokens as they stand.
        filler: rows beside the tokens that nothing reads, see ``build_batch``.
        prefix: states to start from, in place of the embeddings.
    """

    token_ids: Tensor
    type_ids: Tensor
    positions: Tensor
    first_tokens: Tensor
    segments: tuple[Segment, ...]
    longest: int
    attention: Attention
    buckets: tuple[Bucket, ...]
    places: Places | None
    filler: int = 0
    prefix: PrefixStates | None = None

    @property
    def rows(self) -> int:
        return len(self.first_tokens)

    @property
    def tokens(self) -> int:
        return len(self.token_ids)

    @property
    def padded_tokens(self) -> int:
        """Tokens with the padding that attention adds."""
        return sum(bucket.rows * bucket.width for bucket in self.buckets) if self.buckets else self.tokens

    @cached_property
    def row_starts(self) -> Tensor:
        """Where each row starts, those of the filler too, and where the last one ends: int32."""
        device, end = self.first_tokens.device, self.tokens + self.filler
        filler = torch.arange(self.tokens, end, self.longest, device=device)
        return F.pad(torch.cat([self.first_tokens, filler]), (0, 1), value=end).int()


WIDTH_MULTIPLE = 8
"""On the CPU a row takes places up to a multiple of this: few buckets, little padding, and the same for a row whatever
stands beside it, so that its result does not depend on its company."""

FUSED_WIDTH = 160
"""From this row length in tokens on, scores take more memory than the fused kernel costs time; it knows no padding."""

PADDED_BUCKET_ROWS = 32
"""Rows of a padded bucket: enough that its calls have work to do, few enough to be of similar length."""


def build_batch(
    parts: Sequence[tuple[int, TokenRows, IntArray]],
    *,
    device: torch.device,
    attention: Attention = "rows",
    multiple: int = 1,
) -> Batch:
    """Lay rows of one or several adapters end to end.

    Args:
        parts: (adapter, rows to choose from, chosen rows int64 ``[n]``), one for each adapter; the order is kept.
        attention: how the rows attend, see ``FrozenBase.attention``.
        multiple: the forward pass fills its matrices up to a multiple of so many rows, see ``FrozenBase.row_multiple``.
            Filler attends to nothing that counts, nothing reads it, and no gradient reaches it.
    """
    tokens, types, lengths, segments, prefixes = [], [], [], [], []
    row, token = 0, 0
    for adapter, source, chosen in parts:
        part_lengths = source.lengths[chosen]
        where = ranges(source.starts[:-1][chosen], part_lengths)
        tokens.append(source.token_ids[where])
        types.append(source.type_ids[where])
        prefixes.append(source.prefix.take(where) if source.prefix else None)
        lengths.append(part_lengths)
        segments.append(Segment(adapter, row, row + len(chosen), token, token + len(where)))
        row, token = row + len(chosen), token + len(where)
    all_lengths = np.concatenate(lengths)
    starts = np.concatenate([[0], np.cumsum(all_lengths)[:-1]])
    filler = -token % multiple
    buckets, places = _lay_out(starts, all_lengths, attention, filler, device)
    return Batch(
        token_ids=torch.from_numpy(np.concatenate(tokens)).to(device),
        type_ids=torch.from_numpy(np.concatenate(types)).to(device),
        positions=torch.from_numpy(ranges(np.zeros_like(all_lengths), all_lengths)).to(device),
        first_tokens=torch.from_numpy(starts).to(device),
        segments=tuple(segments),
        longest=int(all_lengths.max()),
        attention=attention,
        buckets=buckets,
        places=places,
        filler=filler,
        prefix=_beside(prefixes, device),
    )


def _beside(prefixes: Sequence[PrefixStates | None], device: torch.device) -> PrefixStates | None:
    """The parts' prefixes end to end, where all have one of the same layers; states are a saving, never needed."""
    known = [prefix for prefix in prefixes if prefix is not None]
    if len(known) < len(prefixes) or len({prefix.layer for prefix in known}) != 1:
        return None
    return PrefixStates(known[0].layer, torch.cat([prefix.states.to(device) for prefix in known]))


def _ends_by_count(rows: int) -> list[int]:
    """Where the buckets end that have ``PADDED_BUCKET_ROWS`` rows."""
    return [*range(PADDED_BUCKET_ROWS, rows, PADDED_BUCKET_ROWS), rows]


def _own_widths(lengths: IntArray) -> IntArray:
    """Places of each row by its own length alone; long rows have no padding."""
    rounded = -(-lengths // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
    return np.where(rounded < FUSED_WIDTH, rounded, lengths)


def _ends_of_runs(values: IntArray) -> list[int]:
    """Where the runs of equal values end."""
    ends: list[int] = (np.flatnonzero(np.append(np.diff(values) != 0, True)) + 1).tolist()
    return ends


def _lay_out(
    starts: IntArray, lengths: IntArray, attention: Attention, filler: int, device: torch.device
) -> tuple[tuple[Bucket, ...], Places | None]:
    """Buckets of the rows, shortest first; no places where the tokens stand as the buckets want them already."""
    if attention == "flat":
        return (), None
    widths = _own_widths(lengths) if attention == "rows" else lengths
    order = np.argsort(lengths, kind="stable")
    ends = _ends_of_runs(widths[order]) if attention == "rows" else _ends_by_count(len(order))
    buckets, gathers, paddings, first, place = [], [], [], 0, 0
    for end in ends:
        rows = order[first:end]
        columns = np.arange(int(widths[rows[-1]]))
        padding = columns >= lengths[rows][:, None]
        gathers.append((starts[rows][:, None] + np.where(padding, 0, columns)).ravel())
        paddings.append(place + np.flatnonzero(padding))
        mask = torch.from_numpy(padding).to(device) if padding.any() else None
        buckets.append(Bucket(len(rows), len(columns), mask))
        first, place = end, place + padding.size
    gather, empty = np.concatenate(gathers), np.concatenate(paddings)
    if not filler and len(empty) == 0 and np.array_equal(order, np.arange(len(order))):
        return tuple(buckets), None
    filled = np.ones(len(gather), dtype=bool)
    filled[empty] = False
    scatter = np.zeros(int(lengths.sum()) + filler, dtype=np.int64)
    scatter[gather[filled]] = np.flatnonzero(filled)
    return tuple(buckets), Places(*(torch.from_numpy(array).to(device) for array in (order, gather, scatter, empty)))
