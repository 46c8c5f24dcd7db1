"""Is one run better than another, or luckier? Tests on the same evaluated rows, paired row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

RESAMPLES = 2_000
DRAWS = 40_000_000
"""Most row draws of one bootstrap: very large evaluation sets get fewer resamples, and need fewer."""

EXACT_UP_TO = 2_000
"""Discordant rows up to which McNemar's test is exact; beyond, the normal approximation is as good."""


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Two-sided p that two classifiers err equally often, from the rows that only one of them got right.

    Exact binomial test (McNemar 1947 in the form of Dietterich 1998, section 3.1); with continuity correction when
    there are many such rows.
    """
    discordant, smaller = only_first + only_second, min(only_first, only_second)
    if discordant == 0:
        return 1.0
    if discordant > EXACT_UP_TO:
        distance = max(abs(only_first - only_second) - 1, 0) / math.sqrt(discordant)
        return float(math.erfc(distance / math.sqrt(2)))
    tail = sum(math.comb(discordant, successes) for successes in range(smaller + 1))
    return min(1.0, float(2 * tail / 2**discordant))


def bootstrap_means(differences: Floats, *, seed: int = 0) -> Floats:
    """Means of ``differences`` ``[rows, pairs]`` over resampled rows -> ``[resamples, pairs]``.

    All pairs share the resamples, so that they are compared on the same imagined evaluation sets.
    """
    rows = len(differences)
    generator = np.random.default_rng(seed)
    resamples = max(200, min(RESAMPLES, DRAWS // max(1, rows)))
    means = np.empty((resamples, differences.shape[1]))
    for index in range(resamples):
        counts = np.bincount(generator.integers(0, rows, rows), minlength=rows)
        means[index] = counts @ differences / rows
    return means


def bootstrap_p(means: Floats) -> float:
    """Two-sided p that the true mean is 0, from resampled ``means`` ``[resamples]`` (Efron & Tibshirani 1993)."""
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(means) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): one chance in twenty that any of them is below 0.05 by luck."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted
