"""Seeded choices of rows. The same rows, seed and number give the same choice, on any machine and version.

``numpy.random.RandomState`` is used on purpose: its stream is frozen (NEP 19), that of ``default_rng`` is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def choose_rows(classes: NDArray[np.int64] | None, count: int, *, rows: int, seed: int) -> Indices:
    """Choose ``count`` of ``rows`` rows, with every class in its own share.

    Args:
        classes: class of each row ``[rows]``; ``None`` chooses without strata (regression, several labels a row).

    Returns:
        Row indices ``[min(count, rows)]``, ascending. A class that exists gets at least one row if ``count`` allows.
    """
    if count >= rows:
        return np.arange(rows, dtype=np.int64)
    random = np.random.RandomState(seed)
    if classes is None:
        return np.sort(random.permutation(rows)[:count]).astype(np.int64)
    _, strata = np.unique(classes, return_inverse=True)
    shares = _shares(np.bincount(strata), count)
    chosen = [random.permutation(np.flatnonzero(strata == s))[:share] for s, share in enumerate(shares)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def hold_out(
    texts: Sequence[str] | NDArray[np.uint64], classes: NDArray[np.int64] | None, count: int, *, seed: int
) -> tuple[Indices, Indices]:
    """Split rows into training and held-out ones such that no text stands on both sides.

    Held out are first occurrences of texts that carry one label only; their copies are left out of training.
    A class with a single text stays in training.

    Args:
        texts: texts, or hashes of them; rows with equal ones are copies of each other.
        classes: class of each row ``[rows]``, or ``None`` to choose without strata.
        count: rows to hold out; fewer when there are fewer distinct texts.

    Returns:
        (training rows, held-out rows), both ascending.
    """
    group, first, clear = _groups(texts, classes)
    eligible = first[clear]
    strata = None if classes is None else classes[eligible]
    held_out = eligible[choose_rows(strata, count, rows=len(eligible), seed=seed)]
    is_held_out = np.zeros(len(first), dtype=bool)
    is_held_out[group[held_out]] = True
    return np.flatnonzero(~is_held_out[group]).astype(np.int64), held_out


def _groups(
    texts: Sequence[str] | NDArray[np.uint64], classes: NDArray[np.int64] | None
) -> tuple[Indices, Indices, NDArray[np.bool_]]:
    """Number equal texts: (group of each row, first row of each group, whether the group has one label only)."""
    if isinstance(texts, np.ndarray):
        group = np.unique(texts, return_inverse=True)[1]
    else:
        numbers: dict[str, int] = {}
        known = (numbers.setdefault(text, len(numbers)) for text in texts)
        group = np.fromiter(known, dtype=np.int64, count=len(texts))
    first = np.unique(group, return_index=True)[1].astype(np.int64)
    clear = np.ones(len(first), dtype=bool)
    if classes is not None:
        clear[group[classes != classes[first][group]]] = False
        _, strata, sizes = np.unique(classes[first], return_inverse=True, return_counts=True)
        clear &= sizes[strata] > 1
    return group, first, clear


def _shares(sizes: NDArray[np.int64], count: int) -> list[int]:
    """Rows for each class: proportional by largest remainder, at least one each when ``count`` allows."""
    exact = sizes * (count / sizes.sum())
    least = 1 if count >= len(sizes) else 0
    shares = np.maximum(np.floor(exact).astype(int), least)
    while shares.sum() > count:
        excess = np.where(shares > least, shares - exact, -np.inf)
        shares[np.argmax(excess)] -= 1
    order = np.argsort(-(exact - shares), kind="stable")
    for index in order[: count - shares.sum()]:
        shares[index] += 1
    return [int(share) for share in shares]
