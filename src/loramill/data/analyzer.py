"""What a data set looks like: labels, lengths, words, languages, repetition, examples. Nothing is judged here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loramill.data.findings import BALANCED_BELOW
from loramill.data.labels import count_labels
from loramill.data.languages import language_shares
from loramill.data.near_duplicates import find_near_copies
from loramill.data.rows import SplitRows
from loramill.data.splits import choose_rows
from loramill.data.validator import TokenCounter

if TYPE_CHECKING:
    import pyarrow as pa

LOOKED_AT = 100_000
"""Rows that vocabulary and languages are taken from; more would not change the picture."""
MAX_CLASSES_SHOWN = 50
SEED = 42


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths.

    Attributes:
        edges, counts: histogram with equal bins up to about the 99th percentile, the last one open.
    """

    minimum: int
    median: float
    mean: float
    p95: float
    p99: float
    maximum: int
    edges: Sequence[int]
    counts: Sequence[int]


@dataclass(frozen=True)
class Vocabulary:
    """Words of the rows looked at: how many, how many different ones, and the most frequent."""

    words: int
    distinct: int
    once: int
    most_frequent: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class SplitAnalysis:
    """One split in numbers.

    Attributes:
        characters, words, tokens: lengths of the texts (with their pairs); tokens only with a tokenizer.
        languages: language -> share of the rows looked at.
        near_duplicates: rows that nearly copy an earlier one.
        examples: label -> texts, chosen by a fixed seed.
    """

    name: str
    rows: int
    label_counts: Mapping[str, int]
    imbalance_ratio: float
    is_balanced: bool
    characters: Lengths
    words: Lengths
    tokens: Lengths | None
    vocabulary: Vocabulary
    languages: Mapping[str, float]
    distinct_texts: int
    near_duplicates: int
    examples: Mapping[str, Sequence[str]]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class DatasetAnalyzer:
    """Describes the splits of a data set.

    Args:
        count_tokens: the base model's own tokenizer, for lengths in tokens.
        examples: texts shown for each class.
    """

    def __init__(self, *, count_tokens: TokenCounter | None = None, examples: int = 3) -> None:
        self._count_tokens = count_tokens
        self._examples = examples

    def analyze(self, splits: Mapping[str, SplitRows]) -> dict[str, SplitAnalysis]:
        """Split name -> its description."""
        near = Counter[str]()
        for copies in find_near_copies(splits):
            if copies.split == copies.original_split:
                near[copies.split] += len(copies.rows)
        return {name: self._describe(rows, near[name]) for name, rows in splits.items()}

    def _describe(self, rows: SplitRows, near_duplicates: int) -> SplitAnalysis:
        counts = _shown_counts(rows)
        ratio = round(max(counts.values()) / min(counts.values()), 2) if counts else 1.0
        texts = _whole_texts(rows)
        looked_at = texts.take(choose_rows(None, LOOKED_AT, rows=len(rows), seed=SEED))
        return SplitAnalysis(
            name=rows.name,
            rows=len(rows),
            label_counts=counts,
            imbalance_ratio=ratio,
            is_balanced=ratio < BALANCED_BELOW,
            characters=describe_lengths(character_lengths(texts)),
            words=describe_lengths(word_lengths(texts)),
            tokens=self._token_lengths(rows),
            vocabulary=describe_vocabulary(looked_at),
            languages=language_shares(looked_at),
            distinct_texts=len(np.unique(rows.text_hashes)),
            near_duplicates=near_duplicates,
            examples=_examples(rows, counts, self._examples),
        )

    def _token_lengths(self, rows: SplitRows) -> Lengths | None:
        if self._count_tokens is None:
            return None
        pairs = None if rows.pairs is None else rows.pairs.fill_null("").to_pylist()
        return describe_lengths(self._count_tokens(rows.texts.fill_null("").to_pylist(), pairs))


def describe_lengths(lengths: NDArray[np.int64], bins: int = 24) -> Lengths:
    """Percentiles and a histogram of lengths ``[rows]``."""
    if not len(lengths):
        return Lengths(0, 0.0, 0.0, 0.0, 0.0, 0, (), ())
    p95, p99 = np.percentile(lengths, [95, 99])
    width = max(1, int(np.ceil((p99 + 1) / bins)))  # whole numbers: other bins would hold now one length, now two
    edges = np.arange(0, bins + 1) * width
    counts = np.histogram(np.minimum(lengths, edges[-1]), edges)[0]
    return Lengths(
        minimum=int(lengths.min()),
        median=float(np.median(lengths)),
        mean=round(float(lengths.mean()), 1),
        p95=round(float(p95), 1),
        p99=round(float(p99), 1),
        maximum=int(lengths.max()),
        edges=[int(edge) for edge in edges],
        counts=[int(count) for count in counts],
    )


def character_lengths(texts: pa.LargeStringArray) -> NDArray[np.int64]:
    """Characters of each text ``[rows]``."""
    import pyarrow.compute as pc

    lengths: NDArray[np.int64] = pc.utf8_length(texts).to_numpy(zero_copy_only=False)
    return lengths


def word_lengths(texts: pa.LargeStringArray) -> NDArray[np.int64]:
    """Words of each text ``[rows]``; in Chinese and Japanese every Han character counts as one."""
    import pyarrow.compute as pc

    lengths: NDArray[np.int64] = pc.count_substring_regex(texts, r"\p{Han}|[^\P{L}\p{Han}]+").to_numpy(
        zero_copy_only=False
    )
    return lengths


def describe_vocabulary(texts: pa.LargeStringArray, most_frequent: int = 30) -> Vocabulary:
    """Count words without case; words of one letter and numbers are left out of the most frequent ones."""
    import pyarrow.compute as pc

    lower = pc.replace_substring_regex(pc.utf8_lower(texts), r"(\p{Han})", r" \1 ")
    words = pc.split_pattern_regex(lower, r"[^\pL\pN]+").flatten()
    counts = {entry["values"]: entry["counts"] for entry in words.value_counts().to_pylist() if entry["values"]}
    telling = Counter({word: count for word, count in counts.items() if len(word) > 1 or word > "\u2e7f"})
    return Vocabulary(
        words=sum(counts.values()),
        distinct=len(counts),
        once=sum(count == 1 for count in counts.values()),
        most_frequent=telling.most_common(most_frequent),
    )


def _shown_counts(rows: SplitRows) -> dict[str, int]:
    """Rows of each label; nothing where nearly every label is another one (regression)."""
    counts = count_labels(rows.labels)
    return counts if len(counts) <= max(MAX_CLASSES_SHOWN, len(rows) // 10) else {}


def _whole_texts(rows: SplitRows) -> pa.LargeStringArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = rows.texts.fill_null("")
    if rows.pairs is None:
        return texts
    return pc.binary_join_element_wise(texts, rows.pairs.fill_null(""), pa.scalar("\n", pa.large_string()))


def _examples(rows: SplitRows, counts: Mapping[str, int], number: int) -> dict[str, list[str]]:
    import pyarrow.compute as pc

    if rows.has_several_labels:
        return {}
    chosen = {}
    for label in list(counts)[:MAX_CLASSES_SHOWN]:
        positions = np.flatnonzero(pc.equal(rows.labels, label).fill_null(False).to_numpy(zero_copy_only=False))
        some = positions[choose_rows(None, number, rows=len(positions), seed=SEED)]
        chosen[label] = [(text or "")[:300] for text in rows.texts.take(some).to_pylist()]
    return chosen
