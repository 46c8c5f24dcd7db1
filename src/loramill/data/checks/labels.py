"""Rules for labels: of single rows, and of a whole split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from loramill.arrays import string_scalar, strings, to_numpy
from loramill.data.checks.rule import Cleaning, Hits, whole_split
from loramill.data.findings import Severity
from loramill.data.labels import canonical_number, count_labels, preferred_spellings
from loramill.data.rows import SplitRows

FEW_ROWS = 5
STRONG_IMBALANCE = 10.0
MILD_IMBALANCE = 1.5
MAX_CLASSES_NAMED = 20
GIVEN_AWAY_IN, GIVEN_AWAY_OUT = 0.9, 0.1
OUTLIER_DEVIATIONS = 20
NUMERIC_SHARE = 0.9
NO_LABELS_FIX = "Name another column with data.label_column, or add labels."


def spellings_of(splits: Mapping[str, SplitRows]) -> dict[str, str]:
    """Label -> the spelling of it that all splits should have; that of the training rows goes first."""
    in_order = sorted(splits, key=lambda name: name != "train")
    return preferred_spellings(*(count_labels(splits[name].labels) for name in in_order))


def check_labels(rows: SplitRows, spellings: Mapping[str, str]) -> Iterator[Hits]:
    """Every label rule on one split; a split without any label is one finding, and harmless but for training.

    Args:
        spellings: ``spellings_of`` all splits.
    """
    if not rows.is_labelled.any():
        yield unlabelled_split(rows)
        return
    counts = count_labels(rows.labels)
    yield from missing_labels(rows)
    yield from empty_label_lists(rows)
    yield from mixed_labels(rows, counts, spellings)
    yield from spelling_variants(rows, counts, spellings)
    yield from outlying_numbers(rows, counts)
    if counts and not is_regression(counts):
        yield from class_sizes(rows, counts)
        yield from label_given_away(rows, counts)


def unlabelled_split(rows: SplitRows) -> Hits:
    """Of no use for training, and no harm as a test split."""
    label = rows.columns.label
    if rows.name == "train":
        return whole_split("split_without_labels", "error", rows.name, label, "no row has a label", NO_LABELS_FIX)
    fix = "Nothing to do: it is not used for training or evaluation."
    return whole_split("split_without_labels", "info", rows.name, label, rows.name, fix)


def is_regression(counts: Mapping[str, int]) -> bool:
    """Whether canonical labels are numbers with fractions."""
    numbers = [canonical_number(label) for label in counts]
    return all(number is not None for number in numbers) and any(
        number is not None and not number.is_integer() for number in numbers
    )


def missing_labels(rows: SplitRows) -> Iterator[Hits]:
    """Rows without a label cannot be trained on."""
    found = np.flatnonzero(~rows.is_labelled)
    if len(found):
        yield _hits(rows, "label_missing", "warning", found, "Label the row, or take it out.", "drop")


def empty_label_lists(rows: SplitRows) -> Iterator[Hits]:
    """A list without labels may be meant ("none of them applies"), or a slip; all of them together name no class."""
    if rows.has_several_labels:
        found = np.flatnonzero((to_numpy(rows.labels.value_lengths()) == 0) & rows.is_labelled)
        if len(found) == rows.is_labelled.sum():
            label = rows.columns.label
            yield whole_split("label_list_empty", "error", rows.name, label, "every list is empty", NO_LABELS_FIX)
        elif len(found):
            yield _hits(rows, "label_list_empty", "info", found, "Kept as: no class applies. Is that meant?")


def mixed_labels(rows: SplitRows, counts: dict[str, int], spellings: Mapping[str, str]) -> Iterator[Hits]:
    """Nearly all labels are numbers, and a few are not ("nan", "n/a", "five"): those few are slips."""
    wrong = [label for label in counts if canonical_number(spellings[label]) is None]
    numeric = sum(count for label, count in counts.items() if label not in wrong)
    if not wrong or numeric < NUMERIC_SHARE * sum(counts.values()):
        return
    fix = "Write a number, or take the row out."
    yield from _rows_with(rows, "label_not_a_number", "error", wrong, fix, "drop")


def spelling_variants(rows: SplitRows, counts: dict[str, int], spellings: Mapping[str, str]) -> Iterator[Hits]:
    """Two spellings of one label ("Positive", "positive") would become two classes; the rarer one is reported."""
    variants = [label for label in counts if spellings[label] != label]
    for variant in variants[:MAX_CLASSES_NAMED]:
        fix = f"Write it as '{spellings[variant]}', like the other rows."
        yield from _rows_with(rows, "label_spelling", "error", [variant], fix, "repair")


def outlying_numbers(rows: SplitRows, counts: dict[str, int]) -> Iterator[Hits]:
    """Numbers far outside the others (median absolute deviation) pull a regression towards them."""
    if not is_regression(counts) or rows.has_several_labels:
        return
    values = np.asarray(
        [canonical_number(label) for label in rows.labels.to_pylist() if label is not None], dtype=float
    )
    positions = np.flatnonzero(rows.is_labelled)
    deviations = np.abs(values - np.median(values))
    spread = np.median(deviations) or deviations.mean()
    found = positions[deviations > OUTLIER_DEVIATIONS * spread]
    if len(found):
        yield _hits(rows, "label_outlier", "warning", found, "Is the decimal point in its place?")


def class_sizes(rows: SplitRows, counts: dict[str, int]) -> Iterator[Hits]:
    """A single class, classes of a few rows, and classes much larger than others."""
    label, name = rows.columns.label, rows.name
    if len(counts) == 1 and not rows.has_several_labels:
        fix = "Add rows of another class, or name another label column."
        yield whole_split("label_single", "error", name, label, f"every row has the label '{next(iter(counts))}'", fix)
        return
    if len(counts) > max(FEW_ROWS, len(rows) // 2):
        fix = "Name the column of classes with data.label_column, or set model.num_labels to 1 for regression."
        yield whole_split("label_many_values", "error", name, label, f"{len(counts)} labels in {len(rows)} rows", fix)
        return
    few = {label: count for label, count in counts.items() if count < FEW_ROWS}
    if few:
        shown = ", ".join(f"'{label}' ({count})" for label, count in list(few.items())[:MAX_CLASSES_NAMED])
        fix = "Add rows of these classes, merge them into others, or take them out."
        yield whole_split("label_few_rows", "warning", name, label, f"classes with few rows: {shown}", fix)
    ratio = max(counts.values()) / min(counts.values())
    if ratio >= MILD_IMBALANCE:
        severity: Severity = "warning" if ratio >= STRONG_IMBALANCE else "info"
        fix = "Judge the run by macro F1, not accuracy; or add rows of the small classes."
        shown = f"largest class over smallest: {ratio:.1f}"
        yield whole_split("label_imbalance", severity, name, label, shown, fix)


def label_given_away(rows: SplitRows, counts: dict[str, int]) -> Iterator[Hits]:
    """The label's name stands in nearly all texts of its class, and in few others: the model would learn to read it."""
    import pyarrow.compute as pc

    names = [label for label in counts if canonical_number(label) is None and len(label) > 2]
    if rows.has_several_labels or len(names) > MAX_CLASSES_NAMED:
        return
    for name in names:
        in_class = to_numpy(pc.equal(rows.labels, string_scalar(name)))
        named = to_numpy(pc.match_substring(rows.texts, name, ignore_case=True))
        if counts[name] < FEW_ROWS or in_class.all():
            continue
        if named[in_class].mean() >= GIVEN_AWAY_IN and named[~in_class].mean() <= GIVEN_AWAY_OUT:
            shown = f"'{name}' stands in {named[in_class].mean():.0%} of the texts with this label"
            fix = "Take the label out of the texts."
            yield whole_split("label_given_away", "warning", rows.name, rows.columns.text, shown, fix)


def _rows_with(
    rows: SplitRows, code: str, severity: Severity, labels: Sequence[str], fix: str, cleaning: Cleaning
) -> Iterator[Hits]:
    import pyarrow.compute as pc

    flat = rows.labels.flatten() if rows.has_several_labels else rows.labels
    found = to_numpy(pc.is_in(flat, value_set=strings(labels).cast(flat.type)))
    positions = np.flatnonzero(found)
    if rows.has_several_labels:
        positions = np.unique(np.searchsorted(to_numpy(rows.labels.offsets), positions, side="right") - 1)
    if len(positions):
        yield _hits(rows, code, severity, positions, fix, cleaning)


def _hits(
    rows: SplitRows, code: str, severity: Severity, found: np.ndarray, fix: str, cleaning: Cleaning = "keep"
) -> Hits:
    def excerpt_of(hit: int) -> str:
        row = int(found[hit])
        return f"label {rows.labels[row].as_py()!r}: {rows.texts[row].as_py() or ''}"

    return Hits(code, severity, rows.name, rows.columns.label, fix, found, excerpt_of, cleaning)
