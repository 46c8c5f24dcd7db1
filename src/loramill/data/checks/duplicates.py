"""Rules for pairs of rows: copies, near copies, contradictions, and what leaks from training into evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from loramill.arrays import or_empty, to_numpy
from loramill.data.checks.rule import Cleaning, Hits
from loramill.data.checks.texts import BLANK
from loramill.data.findings import Severity
from loramill.data.near_duplicates import find_near_copies
from loramill.data.rows import Hashes, SplitRows

Indices = NDArray[np.int64]


def check_copies(rows: SplitRows) -> Iterator[Hits]:
    """Copies within a split: with the same label they are repeated, with another one they contradict."""
    if not len(rows):
        return
    first = first_rows(rows.text_hashes)
    contradicting = with_text(rows, conflicting_rows(rows, first))
    if len(contradicting):
        fix = "Decide which label is right; taking all of these rows out is the safe choice."
        yield _pair_hits("label_conflict", "error", rows, contradicting, rows, first[contradicting], fix, "drop")
    repeated = np.flatnonzero((first != np.arange(len(rows))) & ~np.isin(first, first[contradicting]))
    repeated = with_text(rows, repeated)
    if len(repeated):
        fix = "Keep one of them, unless the repetition is meant."
        yield _pair_hits("duplicate_exact", "warning", rows, repeated, rows, first[repeated], fix, "drop")


def check_near_copies(splits: Mapping[str, SplitRows]) -> Iterator[Hits]:
    """Texts that differ in a few words only, within a split and between training and evaluation."""
    for near in find_near_copies(splits):
        rows, originals = splits[near.split], splits[near.original_split]
        if near.split == near.original_split:
            fix = "Keep one of them, unless the difference matters."
            yield _pair_hits("duplicate_near", "info", rows, near.rows, originals, near.originals, fix)
        else:
            fix = "Take the near copy out of the training split, or accept metrics that are a little too good."
            yield _pair_hits("leak_near", "warning", rows, near.rows, originals, near.originals, fix)


def check_leaks(train: SplitRows, evaluation: SplitRows) -> Iterator[Hits]:
    """Rows of an evaluation split that training has seen: they make every metric too good."""
    order = np.argsort(train.text_hashes, kind="stable")
    place = np.searchsorted(train.text_hashes[order], evaluation.text_hashes)
    candidate = order[np.minimum(place, len(order) - 1)]
    leaked = with_text(evaluation, np.flatnonzero(train.text_hashes[candidate] == evaluation.text_hashes))
    if len(leaked):
        fix = "Take the copy out of the training split."
        yield _pair_hits("leak_exact", "error", evaluation, leaked, train, candidate[leaked], fix, "drop")


def check_pairs(rows: SplitRows) -> Iterator[Hits]:
    """Pairs whose two texts are the same."""
    if rows.pairs is None or rows.columns.text_pair is None:
        return
    import pyarrow.compute as pc

    same = np.flatnonzero(to_numpy(pc.equal(rows.texts, rows.pairs)))
    if len(same):
        fix = "Look whether one text was copied into both columns."
        texts = rows.texts
        yield Hits(
            "pair_identical", "warning", rows.name, rows.columns.text_pair, fix, same,
            lambda hit: str(texts[int(same[hit])].as_py()),
        )  # fmt: skip


def with_text(rows: SplitRows, found: Indices) -> Indices:
    """Those of the rows that have any text: one without says nothing, and is the matter of the rules for texts."""
    import pyarrow.compute as pc

    says = np.zeros(len(found), dtype=bool)
    for _, texts in rows.take(found).text_columns:
        says |= ~to_numpy(pc.match_substring_regex(or_empty(texts), BLANK))
    return found[says]


def first_rows(hashes: Hashes) -> Indices:
    """For each row the first row with the same hash ``[rows]``."""
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    firsts: Indices = first[group].astype(np.int64)
    return firsts


def conflicting_rows(rows: SplitRows, first: Indices) -> Indices:
    """Rows whose text also stands in a row with another label, ascending; rows without a label do not count."""
    labels = rows.label_codes
    labelled = labels >= 0
    differs = np.zeros(len(rows), dtype=bool)
    reference = np.full(len(rows), -1, dtype=np.int64)
    positions = np.flatnonzero(labelled)[::-1]
    reference[first[positions]] = labels[positions]
    differs[first[labelled & (labels != reference[first])]] = True
    conflicting: Indices = np.flatnonzero(differs[first] & labelled)
    return conflicting


def _pair_hits(
    code: str,
    severity: Severity,
    rows: SplitRows,
    found: Indices,
    others: SplitRows,
    other_rows: Sequence[int] | Indices,
    fix: str,
    cleaning: Cleaning = "keep",
) -> Hits:
    """Hits that show the row's text, and where its counterpart stands."""

    def excerpt_of(hit: int) -> str:
        row, other = int(found[hit]), int(other_rows[hit])
        if other == row and others is rows:
            counterpart = "first of these"
        else:
            counterpart = f"see {others.name} row {int(others.row_ids[other])}"
        label = rows.labels[row].as_py()
        return f"({counterpart}, label {label!r}) {rows.texts[row].as_py() or ''}"

    return Hits(code, severity, rows.name, rows.columns.text, fix, found, excerpt_of, cleaning)
