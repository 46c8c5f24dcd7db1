"""Rows as tokens, and batches without padding.

A batch is one flat sequence of tokens, the rows one after the other: every linear layer then works on real tokens
only, whatever the lengths. Only attention needs rows; it gets them in buckets of similar length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenRows:
    """Tokenised rows, stored flat.

    Attributes:
        token_ids: int64 ``[tokens]``, all rows one after the other.
        type_ids: int64 ``[tokens]``; 0 for the first text and 1 for the second.
        starts: int64 ``[rows + 1]``; row ``i`` is ``starts[i]:starts[i + 1]``.
        truncated: rows that were longer than the limit.
    """

    token_ids: IntArray
    type_ids: IntArray
    starts: IntArray
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> IntArray:
        """Tokens of every row, ``[rows]``."""
        return np.diff(self.starts)


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
    """Rows of similar length that attend together; their places follow those of the bucket before.

    Attributes:
        rows: how many.
        width: tokens of the longest; every row takes this many places.
        padding: bool ``[rows, width]``, True at padding; ``None`` when all rows are equally long.
    """

    rows: int
    width: int
    padding: Tensor | None


@dataclass(frozen=True)
class Batch:
    """Rows of one or several adapters, as the forward pass takes them.

    Attributes:
        token_ids, type_ids, positions: int64 ``[tokens]``.
        first_tokens: int64 ``[rows]``, where each row starts; the first token is what the heads pool.
        segments: one for each adapter, in order, covering all rows.
        buckets: a partition of the rows for attention.
        bucket_order: int64 ``[rows]``, the rows as the buckets take them.
        gather: int64 ``[places]``, the token at each place of the buckets; padding repeats the row's first token.
        scatter: int64 ``[tokens]``, the place of each token.
    """

    token_ids: Tensor
    type_ids: Tensor
    positions: Tensor
    first_tokens: Tensor
    segments: tuple[Segment, ...]
    buckets: tuple[Bucket, ...]
    bucket_order: Tensor
    gather: Tensor
    scatter: Tensor

    @property
    def rows(self) -> int:
        return len(self.first_tokens)

    @property
    def tokens(self) -> int:
        return len(self.token_ids)

    @property
    def places(self) -> int:
        """Places in the buckets, padding included."""
        return len(self.gather)


BUCKET_ROWS = 8
"""Rows that attend together: enough for a batched matrix product, few enough to be of similar length."""


def build_batch(
    parts: Sequence[tuple[int, TokenRows, IntArray]], *, device: torch.device, bucket_rows: int = BUCKET_ROWS
) -> Batch:
    """Lay rows of one or several adapters end to end.

    Args:
        parts: (adapter, rows to choose from, chosen rows int64 ``[n]``), one for each adapter; the order is kept.
        bucket_rows: rows that attend together.
    """
    tokens, types, lengths, segments = [], [], [], []
    row, token = 0, 0
    for adapter, source, chosen in parts:
        part_lengths = source.lengths[chosen]
        where = _ranges(source.starts[:-1][chosen], part_lengths)
        tokens.append(source.token_ids[where])
        types.append(source.type_ids[where])
        lengths.append(part_lengths)
        segments.append(Segment(adapter, row, row + len(chosen), token, token + len(where)))
        row, token = row + len(chosen), token + len(where)
    all_lengths = np.concatenate(lengths)
    starts = np.concatenate([[0], np.cumsum(all_lengths)[:-1]])
    buckets, order, gather, scatter = _buckets(starts, all_lengths, bucket_rows)
    return Batch(
        token_ids=torch.from_numpy(np.concatenate(tokens)).to(device),
        type_ids=torch.from_numpy(np.concatenate(types)).to(device),
        positions=torch.from_numpy(_ranges(np.zeros_like(all_lengths), all_lengths)).to(device),
        first_tokens=torch.from_numpy(starts).to(device),
        segments=tuple(segments),
        buckets=tuple(Bucket(rows, width, _to(padding, device)) for rows, width, padding in buckets),
        bucket_order=torch.from_numpy(order).to(device),
        gather=torch.from_numpy(gather).to(device),
        scatter=torch.from_numpy(scatter).to(device),
    )


def batches_of_tokens(lengths: IntArray, budget: int) -> list[IntArray]:
    """Rows in batches of about ``budget`` tokens, similar lengths together, longest first.

    The longest come first so that what does not fit in memory fails at once.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    totals = np.cumsum(lengths[order])
    while start < len(order):
        used = totals[start - 1] if start else 0
        stop = max(int(np.searchsorted(totals, used + budget, side="right")), start + 1)
        batches.append(order[start:stop])
        start = stop
    return batches


def _buckets(
    starts: IntArray, lengths: IntArray, bucket_rows: int
) -> tuple[list[tuple[int, int, npt.NDArray[np.bool_] | None]], IntArray, IntArray, IntArray]:
    """((rows, width, padding) of every bucket, order of the rows, gather, scatter); see ``Batch``."""
    order = np.argsort(lengths, kind="stable")
    buckets: list[tuple[int, int, npt.NDArray[np.bool_] | None]] = []
    gathers = []
    scatter = np.empty(int(lengths.sum()), dtype=np.int64)
    place = 0
    for first in range(0, len(order), bucket_rows):
        rows = order[first : first + bucket_rows]
        columns = np.arange(int(lengths[rows[-1]]))
        padding = columns >= lengths[rows][:, None]
        gather = starts[rows][:, None] + np.where(padding, 0, columns)
        scatter[gather[~padding]] = place + np.flatnonzero(~padding)
        place += gather.size
        gathers.append(gather.ravel())
        buckets.append((len(rows), len(columns), padding if padding.any() else None))
    return buckets, order, np.concatenate(gathers), scatter


def _to(padding: npt.NDArray[np.bool_] | None, device: torch.device) -> Tensor | None:
    return None if padding is None else torch.from_numpy(padding).to(device)


def _ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """``[s, s + 1, ..., s + n - 1]`` for every (start s, length n), end to end."""
    ends = np.cumsum(lengths)
    ranges: IntArray = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
    return ranges
