"""Near copies by MinHash and locality-sensitive hashing (Broder 1997; Leskovec et al., Mining of Massive Datasets, 3).

Candidates share all hashes of a band of their signature over word pairs; they are confirmed by the Jaccard
similarity of their words and word pairs. A pair at the threshold is found with a probability of about 0.95, a pair of
0.8 with more than 0.999. Signatures are plain numpy on purpose: docs/decisions says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loramill.arrays import from_numpy, or_empty, string_scalar, to_numpy
from loramill.data.rows import Hashes, SplitRows, hash_strings, slices

if TYPE_CHECKING:
    import pyarrow as pa

Indices = NDArray[np.int64]
Signatures = NDArray[np.uint32]

THRESHOLD = 0.7
"""Jaccard similarity of words and word pairs from which two texts count as near copies."""
BANDS, BAND_ROWS = 16, 4
MIN_WORDS = 4
ROWS_OF_WORDS, ROWS_OF_PAIRS = 32_768, 1024
"""Texts split into words at once, and texts signed at once."""
ESTIMATE_MARGIN = 0.3
"""How far below the threshold an estimate over word pairs may lie before a pair is dropped unseen."""
SEED = 20_140_601


@dataclass(frozen=True)
class NearCopies:
    """Rows of one split that nearly copy rows of the same or another split.

    Attributes:
        rows: positions in ``split`` ``[found]``, ascending.
        originals: positions in ``original_split`` ``[found]``.
    """

    split: str
    rows: Indices
    original_split: str
    originals: Indices


def find_near_copies(splits: Mapping[str, SplitRows]) -> list[NearCopies]:
    """Near copies within each split, and of ``train`` in the others; exact copies are not near copies."""
    stack = _Stack.of(splits)
    first, second = _similar_pairs(stack)
    found = []
    names = list(splits)
    for number, name in enumerate(names):
        for original_number, original in enumerate(names):
            if name != original and original != "train":
                continue
            here = (stack.splits[second] == number) & (stack.splits[first] == original_number)
            if here.any():
                rows, keep = np.unique(stack.rows[second[here]], return_index=True)
                found.append(NearCopies(name, rows, original, stack.rows[first[here]][keep]))
    return found


@dataclass(frozen=True)
class _Stack:
    """The distinct texts of all splits, ``train`` first.

    Attributes:
        splits, rows: number of the split and position in it ``[texts]``.
        hashes: of the whole text ``[texts]``, equal for exact copies.
    """

    texts: pa.LargeStringArray
    hashes: Hashes
    splits: Indices
    rows: Indices

    @classmethod
    def of(cls, splits: Mapping[str, SplitRows]) -> _Stack:
        import pyarrow as pa

        numbers = sorted(range(len(splits)), key=lambda number: list(splits)[number] != "train")
        parts = [(number, list(splits.values())[number]) for number in numbers]
        distinct = [np.sort(np.unique(rows.text_hashes, return_index=True)[1]).astype(np.int64) for _, rows in parts]
        return cls(
            texts=pa.concat_arrays(
                [_joined(rows).take(from_numpy(kept)) for (_, rows), kept in zip(parts, distinct, strict=True)]
            ),
            hashes=np.concatenate([rows.text_hashes[kept] for (_, rows), kept in zip(parts, distinct, strict=True)]),
            splits=np.repeat(np.asarray(numbers, dtype=np.int64), [len(kept) for kept in distinct]),
            rows=np.concatenate(distinct),
        )


def signatures(texts: pa.LargeStringArray) -> tuple[Signatures, NDArray[np.bool_]]:
    """(MinHash of each text's word pairs ``[rows, BANDS * BAND_ROWS]``, whether it has enough words ``[rows]``)."""
    random = np.random.RandomState(SEED)
    factors = random.randint(1, 2**62, BANDS * BAND_ROWS).astype(np.uint64) * np.uint64(2) + np.uint64(1)
    result = np.zeros((len(texts), len(factors)), dtype=np.uint32)
    long_enough = np.zeros(len(texts), dtype=bool)

    def sign(part: tuple[int, int]) -> None:
        start, count = part
        words, edges = word_hashes(texts.slice(start, count))
        long_enough[start : start + count] = np.diff(edges) >= MIN_WORDS
        for inner, inner_count in slices(count, ROWS_OF_PAIRS):
            inner_edges = edges[inner : inner + inner_count + 1]
            target = result[start + inner : start + inner + inner_count]
            _sign(words[inner_edges[0] : inner_edges[-1]], inner_edges - inner_edges[0], factors, target)

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # Arrow and numpy work without the interpreter's lock
        list(threads.map(sign, slices(len(texts), ROWS_OF_WORDS)))
    return result, long_enough


def _sign(words: Hashes, edges: Indices, factors: Hashes, target: Signatures) -> None:
    """Write the signatures of a few texts, so few that their word pairs stay in the processor's cache."""
    filled = np.diff(edges) > 0
    if not filled.any():
        return
    pairs = _word_pairs(words, edges)
    starts = edges[:-1][filled]
    mixed = np.empty_like(pairs)
    for number, factor in enumerate(factors):
        np.multiply(pairs, factor, out=mixed)
        target[filled, number] = np.minimum.reduceat(mixed, starts) >> np.uint64(32)


def word_hashes(texts: pa.LargeStringArray) -> tuple[Hashes, Indices]:
    """Hashes of all words, and where each text's words begin ``[rows + 1]``.

    A word is what stands between blanks, without case and signs; of Han characters every one is a word.
    """
    import pyarrow.compute as pc

    lower = pc.utf8_lower(or_empty(texts))
    if pc.any(pc.match_substring_regex(lower, r"\p{Han}")).as_py():
        lower = pc.replace_substring_regex(lower, r"(\p{Han})", r" \1 ")
    split = pc.utf8_split_whitespace(lower)
    coded = split.flatten().dictionary_encode()
    letters = pc.replace_substring_regex(coded.dictionary, r"[^\pL\pN]+", "")  # each word once, not each occurrence
    vocabulary = np.where(to_numpy(pc.utf8_length(letters)) > 0, hash_strings(letters) | np.uint64(1), np.uint64(0))
    words = vocabulary[to_numpy(coded.indices)]
    offsets = to_numpy(split.offsets).astype(np.int64)
    is_word = words > 0
    before = np.concatenate(([0], np.cumsum(is_word)))
    return words[is_word], before[offsets - offsets[0]]


def _word_pairs(words: Hashes, edges: Indices) -> Hashes:
    """Hashes of neighbouring words; a text's last word pairs with nothing."""
    following = np.append(words[1:], np.uint64(0))
    last = edges[1:][np.diff(edges) > 0] - 1
    following[last] = 0
    mixed = words * np.uint64(0x9E3779B97F4A7C15) + following * np.uint64(0xC2B2AE3D27D4EB4F)
    pairs: Hashes = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return pairs


def _similar_pairs(stack: _Stack) -> tuple[Indices, Indices]:
    """Positions (earlier, later) of similar texts in the stack."""
    signed, long_enough = signatures(stack.texts)
    pairs = [
        candidates[stack.hashes[candidates[:, 0]] != stack.hashes[candidates[:, 1]]]
        for candidates in _candidates(signed, long_enough)
    ]
    unique = np.unique(np.concatenate(pairs), axis=0) if pairs else np.zeros((0, 2), dtype=np.int64)
    likely = unique[_estimated(signed, unique) >= THRESHOLD - ESTIMATE_MARGIN]
    confirmed = likely[_jaccard(stack.texts, likely) >= THRESHOLD]
    return confirmed[:, 0], confirmed[:, 1]


def _candidates(signed: Signatures, long_enough: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """For each band, rows paired with the first row and with the row before that has the same band."""
    rows = np.flatnonzero(long_enough).astype(np.uint64)
    row_bits = np.uint64(len(signed).bit_length())
    mixers = np.asarray([1, 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xBF58476D1CE4E5B9], dtype=np.uint64)
    for band in range(BANDS):
        part = signed[rows, band * BAND_ROWS : (band + 1) * BAND_ROWS].astype(np.uint64)
        keyed = np.sort(((part @ mixers) >> row_bits << row_bits) | rows)  # the row rides in the key's low bits
        keys = keyed >> row_bits
        same = np.flatnonzero(keys[1:] == keys[:-1]) + 1
        if not len(same):
            continue
        ordered_rows = (keyed & ((np.uint64(1) << row_bits) - np.uint64(1))).astype(np.int64)
        begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        heads = begins[np.searchsorted(begins, same, side="right") - 1]
        yield np.stack([ordered_rows[heads], ordered_rows[same]], axis=1)
        yield np.stack([ordered_rows[same - 1], ordered_rows[same]], axis=1)


def _estimated(signed: Signatures, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Similarity of each pair by its signatures, a part at a time to bound the memory."""
    estimates = [
        (signed[pairs[start : start + count, 0]] == signed[pairs[start : start + count, 1]]).mean(axis=1)
        for start, count in slices(len(pairs), 100_000)
    ]
    return np.concatenate(estimates) if estimates else np.zeros(0)


def _jaccard(texts: pa.LargeStringArray, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Exact Jaccard similarity of the words and word pairs of each pair of texts."""
    exact = [_jaccard_part(texts, pairs[start : start + count]) for start, count in slices(len(pairs), ROWS_OF_WORDS)]
    return np.concatenate(exact) if exact else np.zeros(0)


def _jaccard_part(texts: pa.LargeStringArray, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    rows, place = np.unique(pairs, return_inverse=True)
    words, edges = word_hashes(texts.take(from_numpy(rows)))
    neighbours = _word_pairs(words, edges)
    spans = list(zip(edges.tolist(), edges[1:].tolist(), strict=False))
    sets = [{*words[a:b].tolist(), *neighbours[a : b - 1].tolist()} for a, b in spans]
    place = place.reshape(pairs.shape)
    return np.asarray(
        [
            len(sets[a] & sets[b]) / max(1, len(sets[a] | sets[b]))
            for a, b in zip(place[:, 0].tolist(), place[:, 1].tolist(), strict=True)
        ]
    )


def _joined(rows: SplitRows) -> pa.LargeStringArray:
    """Text and pair as one text."""
    if rows.pairs is None:
        return rows.texts
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(or_empty(rows.texts), or_empty(rows.pairs), string_scalar(" "))
