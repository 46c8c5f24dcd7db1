"""Rows as tokens, and batches without padding.

A batch is one flat sequence of tokens, the rows one after the other: every linear layer then works on real tokens
only, whatever the lengths. Only attention needs rows. On the CPU it gets neighbours of equal length, which are a view
of the flat sequence: no copies, no padding, no masks. Other devices, where each call costs more, get fewer and larger
buckets of similar length, padded.
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

    def take(self, chosen: IntArray) -> TokenRows:
        """Some of the rows, in the order given."""
        lengths = self.lengths[chosen]
        where = _ranges(self.starts[:-1][chosen], lengths)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return TokenRows(self.token_ids[where], self.type_ids[where], starts)

    def first(self, count: int) -> TokenRows:
        """The first ``count`` rows, or all if there are fewer."""
        starts = self.starts[: count + 1]
        return TokenRows(self.token_ids[: starts[-1]], self.type_ids[: starts[-1]], starts)

    def sorted_by_length(self, chosen: IntArray) -> IntArray:
        """The same rows, shortest first."""
        order: IntArray = chosen[np.argsort(self.lengths[chosen], kind="stable")]
        return order


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
        width: tokens of the longest; every row takes this many places.
        padding: bool ``[rows, width]``, True at padding; ``None`` when all rows are equally long.
    """

    rows: int
    width: int
    padding: Tensor | None = None


@dataclass(frozen=True)
class Places:
    """Where the rows stand in buckets that do not take them in the order of the batch.

    Attributes:
        order: int64 ``[rows]``, the rows as the buckets take them.
        gather: int64 ``[places]``, the token at each place; padding, if there is any, repeats the row's first token.
        scatter: int64 ``[tokens]``, the place of each token.
    """

    order: Tensor
    gather: Tensor
    scatter: Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of one or several adapters, as the forward pass takes them.

    Attributes:
        token_ids, type_ids, positions: int64 ``[tokens]``.
        first_tokens: int64 ``[rows]``, where each row starts; the first token is what the heads pool.
        segments: one for each adapter, in order, covering all rows.
        buckets: a partition of the rows for attention.
        places: how tokens and buckets map; ``None`` when the buckets are the tokens as they stand.
        padded: whether rows of a bucket are of similar length only, and not equally long.
    """

    token_ids: Tensor
    type_ids: Tensor
    positions: Tensor
    first_tokens: Tensor
    segments: tuple[Segment, ...]
    buckets: tuple[Bucket, ...]
    places: Places | None
    padded: bool

    @property
    def rows(self) -> int:
        return len(self.first_tokens)

    @property
    def tokens(self) -> int:
        return len(self.token_ids)

    @property
    def padded_tokens(self) -> int:
        """Tokens with the padding that attention adds."""
        return sum(bucket.rows * bucket.width for bucket in self.buckets)


PADDED_BUCKET_ROWS = 8
"""Rows of a padded bucket: enough for a batched matrix product, few enough to be of similar length."""


def build_batch(
    parts: Sequence[tuple[int, TokenRows, IntArray]], *, device: torch.device, padded: bool | None = None
) -> Batch:
    """Lay rows of one or several adapters end to end.

    Args:
        parts: (adapter, rows to choose from, chosen rows int64 ``[n]``), one for each adapter; the order is kept.
        padded: whether attention gets padded buckets; by default everywhere but on the CPU.
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
    wants_padding = device.type != "cpu" if padded is None else padded
    make_buckets = _padded_buckets if wants_padding else _equal_buckets
    buckets, places = make_buckets(starts, all_lengths, device)
    return Batch(
        token_ids=torch.from_numpy(np.concatenate(tokens)).to(device),
        type_ids=torch.from_numpy(np.concatenate(types)).to(device),
        positions=torch.from_numpy(_ranges(np.zeros_like(all_lengths), all_lengths)).to(device),
        first_tokens=torch.from_numpy(starts).to(device),
        segments=tuple(segments),
        buckets=buckets,
        places=places,
        padded=wants_padding,
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


def _equal_buckets(
    starts: IntArray, lengths: IntArray, device: torch.device
) -> tuple[tuple[Bucket, ...], Places | None]:
    """All rows of one length together. Rows that do not stand so already, as those of several adapters, are moved."""
    runs = _runs(lengths)
    if len(runs) == len(np.unique(lengths)):
        return runs, None
    order = np.argsort(lengths, kind="stable")
    gather = _ranges(starts[order], lengths[order])
    scatter = np.empty_like(gather)
    scatter[gather] = np.arange(len(gather))
    moved = (torch.from_numpy(index).to(device) for index in (order, gather, scatter))
    return _runs(lengths[order]), Places(*moved)


def _runs(lengths: IntArray) -> tuple[Bucket, ...]:
    """Neighbouring rows of equal length."""
    ends = np.flatnonzero(np.append(np.diff(lengths) != 0, True)) + 1
    counts = np.diff(ends, prepend=0)
    return tuple(Bucket(int(rows), int(lengths[end - 1])) for rows, end in zip(counts, ends, strict=True))


def _padded_buckets(starts: IntArray, lengths: IntArray, device: torch.device) -> tuple[tuple[Bucket, ...], Places]:
    """Rows of similar length, ``PADDED_BUCKET_ROWS`` at a time."""
    order = np.argsort(lengths, kind="stable")
    buckets, gathers, place = [], [], 0
    scatter = np.empty(int(lengths.sum()), dtype=np.int64)
    for first in range(0, len(order), PADDED_BUCKET_ROWS):
        rows = order[first : first + PADDED_BUCKET_ROWS]
        columns = np.arange(int(lengths[rows[-1]]))
        padding = columns >= lengths[rows][:, None]
        gather = starts[rows][:, None] + np.where(padding, 0, columns)
        scatter[gather[~padding]] = place + np.flatnonzero(~padding)
        place += gather.size
        gathers.append(gather.ravel())
        mask = torch.from_numpy(padding).to(device) if padding.any() else None
        buckets.append(Bucket(len(rows), len(columns), mask))
    arrays = (order, np.concatenate(gathers), scatter)
    return tuple(buckets), Places(*(torch.from_numpy(array).to(device) for array in arrays))


def _ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """``[s, s + 1, ..., s + n - 1]`` for every (start s, length n), end to end."""
    ends = np.cumsum(lengths)
    ranges: IntArray = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
    return ranges
