"""Successive halving (Jamieson & Talwalkar, arXiv:1502.07943): all trials start, and only the best go on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Halving:
    """Rungs at growing shares of the training.

    Attributes:
        keep: one trial in so many goes on after each rung.
        rungs: how often trials are compared before the end.
        rows: evaluation rows that the last comparison takes, each one before it half of the next's, as it has more
            trials to judge and less to judge by; more would cost as much as the training that it saves.
    """

    keep: int = 2
    rungs: int = 3
    rows: int = 512

    def shares(self) -> list[float]:
        """Shares of the whole training at which trials are compared, ascending: keep 2, rungs 3: 1/8, 1/4, 1/2."""
        return [self.keep**-exponent for exponent in range(self.rungs, 0, -1)]

    def rows_at(self, rung: int) -> int:
        """Evaluation rows of the comparison at a rung, counted from 0."""
        return max(1, self.rows >> (self.rungs - 1 - rung))

    def survivors(self, scores: Sequence[float]) -> list[int]:
        """Places of the trials that go on, best first; more is better, and the earlier trial wins a tie."""
        order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
        return order[: max(1, math.ceil(len(scores) / self.keep))]
