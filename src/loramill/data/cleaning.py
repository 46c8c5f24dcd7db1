"""Cleaning by rule: drops or repairs rows, and writes down what it did to each of them. The original stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from loramill.arrays import from_numpy
from loramill.config.schema import ValidationRules
from loramill.data.checks.duplicates import check_copies, with_text
from loramill.data.checks.files import check_file_damage
from loramill.data.checks.labels import check_labels, spellings_of
from loramill.data.checks.rule import Hits, TextRule
from loramill.data.checks.texts import text_rules
from loramill.data.findings import Finding, excerpt
from loramill.data.labels import canonical_labels
from loramill.data.rows import SplitRows

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Change:
    """What happened to one row.

    Attributes:
        row: 0-based row in the source split.
        action: ``dropped`` or ``repaired``.
        before, after: excerpts; ``after`` is empty for a dropped row.
    """

    split: str
    row: int
    column: str | None
    code: str
    action: Literal["dropped", "repaired"]
    before: str
    after: str = ""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Cleaned:
    """Clean splits, and the record of every change."""

    splits: Mapping[str, SplitRows]
    changes: tuple[Change, ...]

    @property
    def summary(self) -> dict[str, int]:
        """Rule and action -> rows, such as ``{"html_tags repaired": 12}``."""
        return dict(sorted(Counter(f"{change.code} {change.action}" for change in self.changes).items()))


def clean(
    splits: Mapping[str, SplitRows],
    rules: ValidationRules | None = None,
    spellings: Mapping[str, str] | None = None,
    *,
    found_while_reading: Sequence[Finding] = (),
) -> Cleaned:
    """Repair what can be repaired, then drop what the rules drop.

    An evaluation split keeps its copies and contradictions; the copies of its rows leave the training split.

    Args:
        spellings: ``spellings_of`` the data set, where these splits are a part of it.
        found_while_reading: findings of the readers; the rows that they left out are changes, too.
    """
    changes = [
        Change(finding.split, finding.row, finding.column, finding.code, "dropped", finding.excerpt)
        for finding in found_while_reading
        if finding.row is not None and finding.severity == "error"
    ]
    rules, spellings = rules or ValidationRules(), spellings or spellings_of(splits)
    cleaned = {name: _clean_split(rows, rules, spellings, changes) for name, rows in splits.items()}
    train = cleaned.get("train")
    if train is not None:
        for name, rows in cleaned.items():
            if name != "train":
                train = _without_leaks(train, rows, changes)
        cleaned["train"] = train
    return Cleaned(cleaned, tuple(changes))


def labels_once_clean(rows: SplitRows, spellings: Mapping[str, str]) -> pa.Array:
    """The labels that ``clean`` leaves: before them nobody knows what kind of problem the rows pose."""
    return _with_clean_labels(rows, spellings, []).labels


def repair_texts(rows: SplitRows, rule: TextRule, changes: list[Change]) -> SplitRows:
    """Apply one repairing rule to text and pair."""
    texts = _repaired(rows, rows.columns.text, rows.texts, rule, changes)
    if rows.pairs is None or rows.columns.text_pair is None:
        return replace(rows, texts=texts)
    return replace(rows, texts=texts, pairs=_repaired(rows, rows.columns.text_pair, rows.pairs, rule, changes))


def drop_rows(
    rows: SplitRows, positions: NDArray[np.int64], column: str | None, code: str, changes: list[Change]
) -> SplitRows:
    """Leave rows out, and write down which."""
    if not len(positions):
        return rows
    changes += _dropped(rows, positions, column, code)
    return rows.take(np.setdiff1d(np.arange(len(rows)), positions))


def _dropped(rows: SplitRows, positions: NDArray[np.int64], column: str | None, code: str) -> Iterator[Change]:
    for position in positions.tolist():
        before = excerpt(rows.texts[position].as_py() or "")
        yield Change(rows.name, int(rows.row_ids[position]), column, code, "dropped", before)


def _clean_split(
    rows: SplitRows, rules: ValidationRules, spellings: Mapping[str, str], changes: list[Change]
) -> SplitRows:
    for rule in text_rules(rules):
        if rule.repair is not None:
            rows = repair_texts(rows, rule, changes)
    for rule in text_rules(rules):
        if rule.drops:
            for column, texts in rows.text_columns:
                rows = drop_rows(rows, np.flatnonzero(rule.find(texts)), column, rule.code, changes)
    rows = _without_hits(rows, check_file_damage(rows), changes)
    rows = _with_clean_labels(rows, spellings, changes)
    return _without_hits(rows, check_copies(rows), changes) if rows.name == "train" else rows


def _with_clean_labels(rows: SplitRows, spellings: Mapping[str, str], changes: list[Change]) -> SplitRows:
    """Spelled alike, without those that fit no other, and in the canonical spelling of those that remain."""
    rows = _with_preferred_labels(rows, spellings, changes)
    rows = _without_hits(rows, check_labels(rows, spellings), changes)
    return replace(rows, labels=canonical_labels(rows.labels))


def _without_hits(rows: SplitRows, found: Iterable[Hits], changes: list[Change]) -> SplitRows:
    """Leave out what several rules found, each row under the first rule that found it."""
    kept = np.ones(len(rows), dtype=bool)
    for hits in found:
        if hits.cleaning == "drop" and hits.rows is not None:
            positions = hits.rows[kept[hits.rows]]
            changes += _dropped(rows, positions, hits.column, hits.code)
            kept[positions] = False
    return rows if kept.all() else rows.take(np.flatnonzero(kept))


def _without_leaks(train: SplitRows, evaluation: SplitRows, changes: list[Change]) -> SplitRows:
    leaked = with_text(train, np.flatnonzero(np.isin(train.text_hashes, evaluation.text_hashes)))
    return drop_rows(train, leaked, train.columns.text, "leak_exact", changes)


def _repaired(
    rows: SplitRows, column: str, texts: pa.LargeStringArray, rule: TextRule, changes: list[Change]
) -> pa.LargeStringArray:
    """Texts with those at fault repaired; the others stay byte for byte."""
    import pyarrow.compute as pc

    found = rule.find(texts)
    if rule.repair is None or not found.any():
        return texts
    positions = np.flatnonzero(found)
    before = texts.take(from_numpy(positions))
    after = rule.repair(before)
    for position, old, new in zip(positions.tolist(), before.to_pylist(), after.to_pylist(), strict=True):
        if old != new:
            row = int(rows.row_ids[position])
            changes.append(Change(rows.name, row, column, rule.code, "repaired", excerpt(old), excerpt(new)))
    return pc.replace_with_mask(texts, from_numpy(found), after)


def _with_preferred_labels(rows: SplitRows, spellings: Mapping[str, str], changes: list[Change]) -> SplitRows:
    """Rarer spellings of a label written like the most frequent one."""
    import pyarrow as pa

    if all(label == better for label, better in spellings.items()):
        return rows
    labels = rows.labels.to_pylist()
    for position, label in enumerate(labels):
        if isinstance(label, list):  # two spellings in one list become one label
            better: Any = list(dict.fromkeys(spellings.get(one, one) for one in label))
        else:
            better = spellings.get(label, label)
        if better != label:
            row, column = int(rows.row_ids[position]), rows.columns.label
            changes.append(Change(rows.name, row, column, "label_spelling", "repaired", str(label), str(better)))
            labels[position] = better
    return replace(rows, labels=pa.array(labels, rows.labels.type))
