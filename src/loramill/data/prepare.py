"""From a data config to rows that a run can train and evaluate on.

Read, leave out what cannot be trained on, split, choose, check, store as versions, number the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loramill.arrays import or_empty
from loramill.config.schema import DataConfig
from loramill.data.checks.labels import spellings_of
from loramill.data.checks.texts import text_rules
from loramill.data.cleaning import Change, clean, drop_rows, labels_once_clean, repair_texts
from loramill.data.findings import ValidationReport
from loramill.data.labels import LabelSet, ProblemType, encode_labels, find_label_set
from loramill.data.rows import SplitRows
from loramill.data.sources import SourceData, load_source
from loramill.data.splits import choose_rows, hold_out
from loramill.data.validator import DataValidator, TokenCounter
from loramill.data.version_manager import DataVersionManager
from loramill.errors import DataRefusedError, EmptyDatasetError

HELD_OUT = "held_out"
"""Name of the split that is made from training rows when the data has none to evaluate on."""


@dataclass(frozen=True)
class LabelledRows:
    """One split, in order.

    Attributes:
        labels: int64 ``[rows]``; float32 ``[rows]`` for regression; float32 ``[rows, classes]`` for multi-label.
        row_ids: int64 ``[rows]``, 0-based row in the source split.
        positions: int64 ``[rows]``, 0-based row in the stored version: the same from whatever source it came.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: NDArray[np.int64] | NDArray[np.float32]
    row_ids: NDArray[np.int64]
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class PreparedData:
    """Everything that a run needs to know about its data.

    Attributes:
        label_names: what a person calls each class, in the order of the class numbers.
        report: what validation found in the rows chosen, before any cleaning.
        versions: ``{"train": id, "eval": id}`` of the stored rows.
        notes: choices made, in sentences: columns found, split made, rows left out.
    """

    train: LabelledRows
    eval: LabelledRows
    label_names: tuple[str, ...]
    problem_type: ProblemType
    report: ValidationReport
    versions: Mapping[str, str]
    notes: tuple[str, ...]


def prepare_data(
    config: DataConfig,
    *,
    num_labels: int | None,
    seed: int,
    data_folder: Path,
    strict: bool = False,
    count_tokens: TokenCounter | None = None,
) -> PreparedData:
    """Read the data set, split it if needed, choose rows, check them, store them and number the labels.

    Args:
        num_labels: ``model.num_labels``; found from the training rows when ``None``.
        seed: decides the split and the choice of rows.
        data_folder: holds downloads and stored versions.
        strict: refuse on any finding of severity ``error`` that cleaning does not remove.
        count_tokens: counts untruncated tokens, for the truncation rate.

    Raises:
        DatasetNotFoundError, MissingSplitError, MissingColumnError, EmptyDatasetError, LabelError,
        UnreadableDataError, DataTooLargeError, DataRefusedError: the data cannot be trained on.
        DiskFullError, UnwritableError: the rows cannot be stored.
    """
    source = load_source(config, data_folder)
    notes = list(source.notes)
    label_set = _label_set(source, config, num_labels)
    train, evaluation = _split(source, label_set, config, seed, notes)
    chosen = {
        "train": _choose(train, config.train_samples, label_set, seed),
        evaluation.name: _choose(evaluation, config.eval_samples, label_set, seed),
    }
    report = _checked(chosen, source, config, count_tokens)
    refuse_on_errors(report, config, strict=strict)
    usable = _usable(chosen, source, config, notes)
    train, evaluation = usable["train"], usable[evaluation.name]
    return PreparedData(
        train=_encoded(train, label_set),
        eval=_encoded(evaluation, label_set),
        label_names=label_set.names,
        problem_type=label_set.problem_type,
        report=report,
        versions=_store({"train": train, "eval": evaluation}, source, data_folder),
        notes=tuple(notes),
    )


def _checked(
    chosen: Mapping[str, SplitRows], source: SourceData, config: DataConfig, count_tokens: TokenCounter | None
) -> ValidationReport:
    validator = DataValidator(config.validation_rules, max_length=config.max_length, count_tokens=count_tokens)
    return validator.validate(chosen, found_while_reading=source.findings)


def refuse_on_errors(report: ValidationReport, config: DataConfig, *, strict: bool) -> None:
    """Refuse when the config or ``--strict`` says so and there are errors.

    Raises:
        DataRefusedError: names how many findings of which kind, and the first.
    """
    errors = [finding for finding in report.findings if finding.severity == "error"]
    if config.on_findings == "clean":
        errors = [finding for finding in errors if finding.row is None]
    if not errors or not (strict or config.on_findings == "refuse"):
        return
    codes = ", ".join(f"{code} ({report.finding_counts[code]})" for code in sorted({error.code for error in errors}))
    first = errors[0]
    place = f"row {first.row} of {first.split}" if first.row is not None else f"split {first.split}"
    raise DataRefusedError(
        f"The data has findings of severity error: {codes}. First: {first.code} in {place}: {first.excerpt!r}.",
        fix=f"{first.fix} `loramill data validate` lists them all; data.on_findings: clean takes them out.",
    )


def _label_set(source: SourceData, config: DataConfig, num_labels: int | None) -> LabelSet:
    """The classes of the training rows, as cleaning leaves them where the config says ``clean``."""
    train = source.splits["train"]
    labels = labels_once_clean(train, spellings_of(source.splits)) if config.on_findings == "clean" else train.labels
    return find_label_set(labels, num_labels=num_labels, names=source.label_names)


def _split(
    source: SourceData, label_set: LabelSet, config: DataConfig, seed: int, notes: list[str]
) -> tuple[SplitRows, SplitRows]:
    """Labelled rows to train and to evaluate on."""
    train = _labelled(source.splits["train"], notes)
    if source.eval_name is not None:
        notes.append(f"Evaluating on the split '{source.eval_name}'.")
        return train, _labelled(source.splits[source.eval_name], notes)
    count = max(1, round(len(train) * config.eval_fraction))
    held_in, held_out = hold_out(train.text_hashes, _strata(train, label_set), count, seed=seed)
    copies = len(train) - len(held_in) - len(held_out)
    notes.append(f"No validation split: {len(held_out)} rows held out (seed {seed}, every class in its share).")
    if copies:
        notes.append(f"{copies} copies of held-out rows left out of training.")
    if not len(held_in) or not len(held_out):
        raise EmptyDatasetError(
            f"{source.origin} has too few different rows to hold some out.",
            fix="Add rows: at least two different texts for each class. Where the labels are whole numbers to predict, "
            "set model.num_labels to 1 (regression).",
        )
    return train.take(held_in), replace(train.take(held_out), name=HELD_OUT)


def _labelled(rows: SplitRows, notes: list[str]) -> SplitRows:
    """Rows that have a label; the others are of no use to a run."""
    positions = np.flatnonzero(rows.is_labelled)
    if len(positions) == len(rows):
        return rows
    if not len(positions):
        raise EmptyDatasetError(
            f"No row of the {rows.name} split has a label in column '{rows.columns.label}'.",
            fix="Name another column with data.label_column.",
        )
    notes.append(f"{len(rows) - len(positions)} rows without a label left out of the {rows.name} split.")
    return rows.take(positions)


def _choose(rows: SplitRows, count: int | None, label_set: LabelSet, seed: int) -> SplitRows:
    if count is None or count >= len(rows):
        return rows
    return rows.take(choose_rows(_strata(rows, label_set), count, rows=len(rows), seed=seed))


def _strata(rows: SplitRows, label_set: LabelSet) -> NDArray[np.int64] | None:
    """Class of each row for a stratified choice; ``None`` where rows have no single class."""
    return rows.label_codes if label_set.problem_type == "single_label_classification" else None


def _usable(
    splits: Mapping[str, SplitRows], source: SourceData, config: DataConfig, notes: list[str]
) -> dict[str, SplitRows]:
    """What remains to train on: cleaned if the config says so; without empty texts and markup in any case."""
    if config.on_findings == "clean":
        cleaned = clean(splits, config.validation_rules, spellings_of(source.splits))
        notes += [f"Cleaning: {what}, {count} rows." for what, count in cleaned.summary.items()]
        usable = dict(cleaned.splits)
    else:
        usable = {name: _applied(rows, config, notes) for name, rows in splits.items()}
    for name, rows in usable.items():
        if not len(rows):
            raise EmptyDatasetError(f"No row of the {name} split is left.", fix="Look at `loramill data validate`.")
    return usable


def _applied(rows: SplitRows, config: DataConfig, notes: list[str]) -> SplitRows:
    """The two rules that decide about training itself: ``allow_empty`` and ``remove_html``."""
    changes: list[Change] = []
    for rule in text_rules(config.validation_rules):
        if config.validation_rules.remove_html and rule.code in ("html_tags", "html_entities"):
            rows = repair_texts(rows, rule, changes)
    for rule in text_rules(config.validation_rules):
        if rule.code in ("text_missing", "text_empty") and rule.drops:
            rows = drop_rows(rows, np.flatnonzero(rule.find(rows.texts)), rows.columns.text, rule.code, changes)
    repaired = sum(change.action == "repaired" for change in changes)
    if repaired:
        notes.append(f"HTML removed from {repaired} texts of the {rows.name} split.")
    if len(changes) > repaired:
        notes.append(f"{len(changes) - repaired} rows without a text left out of the {rows.name} split.")
    return rows


def _encoded(rows: SplitRows, label_set: LabelSet) -> LabelledRows:
    pairs = None if rows.pairs is None else or_empty(rows.pairs).to_pylist()
    labels = encode_labels(rows.labels, label_set, rows.name)
    return LabelledRows(or_empty(rows.texts).to_pylist(), pairs, labels, rows.row_ids, np.arange(len(rows)))


def _store(splits: Mapping[str, SplitRows], source: SourceData, data_folder: Path) -> dict[str, str]:
    manager = DataVersionManager(data_folder)
    return {
        name: manager.create(rows, source=f"{source.origin} ({name})", label_names=source.label_names).version.id
        for name, rows in splits.items()
    }
