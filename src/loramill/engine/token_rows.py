"""Rows of text as tokens, stored flat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PrefixStates:
    """What the frozen layers below ``layer`` make of tokens, whoever's adapter comes above them.

    Attributes:
        states: ``[tokens, hidden]`` in the compute type, in the order of ``TokenRows.token_ids``; may lie in a file.
    """

    layer: int
    states: Tensor

    def take(self, tokens: IntArray) -> PrefixStates:
        """Those of some tokens, in the order given."""
        return PrefixStates(self.layer, self.states[torch.from_numpy(tokens)])


@dataclass(frozen=True)
class TokenRows:
    """Tokenised rows, stored flat.

    Attributes:
        token_ids: int64 ``[tokens]``, all rows one after the other.
        type_ids: int64 ``[tokens]``; 0 for the first text and 1 for the second.
        starts: int64 ``[rows + 1]``; row ``i`` is ``starts[i]:starts[i + 1]``.
        truncated: rows that were longer than the limit.
        prefix: states of the tokens above the layers that no adapter changes, if they were computed before.
    """

    token_ids: IntArray
    type_ids: IntArray
    starts: IntArray
    truncated: int = 0
    prefix: PrefixStates | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def lengths(self) -> IntArray:
        """Tokens of every row, ``[rows]``."""
        return np.diff(self.starts)

    def take(self, chosen: IntArray) -> TokenRows:
        """Some of the rows, in the order given."""
        lengths = self.lengths[chosen]
        where = ranges(self.starts[:-1][chosen], lengths)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        prefix = self.prefix.take(where) if self.prefix else None
        return TokenRows(self.token_ids[where], self.type_ids[where], starts, prefix=prefix)

    def first(self, count: int) -> TokenRows:
        """The first ``count`` rows, or all if there are fewer."""
        starts = self.starts[: count + 1]
        return TokenRows(self.token_ids[: starts[-1]], self.type_ids[: starts[-1]], starts)

    def sorted_by_length(self, chosen: IntArray) -> IntArray:
        """The same rows, shortest first."""
        order: IntArray = chosen[np.argsort(self.lengths[chosen], kind="stable")]
        return order


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


def ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """``[s, s + 1, ..., s + n - 1]`` for every (start s, length n), end to end."""
    ends = np.cumsum(lengths)
    ranges: IntArray = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
    return ranges
