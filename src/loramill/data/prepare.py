"""From a data config to rows that a run can train and evaluate on: read, choose, check, encode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loramill.config.schema import DataConfig
from loramill.data.columns import Columns, find_columns
from loramill.data.findings import ValidationReport
from loramill.data.labels import (
    LabelSet,
    ProblemType,
    canonical_labels,
    count_labels,
    encode_labels,
    find_label_set,
)
from loramill.data.sources import SourceData, eval_split_name, load_source
from loramill.data.splits import Indices, choose_rows, hold_out
from loramill.errors import EmptyDatasetError, MissingColumnError

if TYPE_CHECKING:
    import pyarrow as pa

TokenCounter = Callable[[Sequence[str], Sequence[str] | None], NDArray[np.int64]]
"""(texts, pairs) -> tokens of each row ``[rows]``, before any truncation."""


@dataclass(frozen=True)
class LabelledRows:
    """One split, in order.

    Attributes:
        labels: int64 ``[rows]``; float32 ``[rows]`` for regression; float32 ``[rows, classes]`` for multi-label.
        row_ids: int64 ``[rows]``, 0-based row in the source split.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: NDArray[np.int64] | NDArray[np.float32]
    row_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class PreparedData:
    """Everything that a run needs to know about its data.

    Attributes:
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


@dataclass(frozen=True)
class _Split:
    """Rows in canonical form: label strings, no row without a label."""

    name: str
    texts: list[str]
    pairs: list[str] | None
    labels: pa.Array
    row_ids: Indices

    def take(self, rows: Indices, name: str | None = None) -> _Split:
        chosen = rows.tolist()
        return _Split(
            name or self.name,
            [self.texts[row] for row in chosen],
            [self.pairs[row] for row in chosen] if self.pairs is not None else None,
            self.labels.take(rows),
            self.row_ids[rows],
        )

    def encoded(self, label_set: LabelSet) -> LabelledRows:
        return LabelledRows(self.texts, self.pairs, encode_labels(self.labels, label_set, self.name), self.row_ids)


def prepare_data(
    config: DataConfig,
    *,
    num_labels: int | None,
    seed: int,
    data_folder: Path,
    strict: bool = False,
    count_tokens: TokenCounter | None = None,
) -> PreparedData:
    """Read the data set, split it if needed, choose rows, check them and number the labels.

    Args:
        num_labels: ``model.num_labels``; found from the training rows when ``None``.
        seed: decides the split and the choice of rows.
        data_folder: holds downloads and stored versions.
        strict: refuse on any finding of severity ``error``, whatever ``config.on_findings`` says.
        count_tokens: counts untruncated tokens, for the truncation rate.

    Raises:
        DatasetNotFoundError, MissingSplitError, MissingColumnError, EmptyDatasetError, LabelError,
        DataRefusedError: the data cannot be trained on; each says what is wrong and what to do.
    """
    source = load_source(config, data_folder)
    columns = find_columns(
        source.splits["train"], text=config.text_column, text_pair=config.text_pair_column, label=config.label_column
    )
    notes = [*source.notes, f"Found {columns.describe()}."]
    train, evaluation = _both_splits(source, columns, config, seed, notes)
    label_set = find_label_set(train.labels, num_labels=num_labels, names=source.label_names)
    train = _choose(train, config.train_samples, label_set, seed)
    evaluation = _choose(evaluation, config.eval_samples, label_set, seed)
    counts = count_labels(train.labels) if label_set.problem_type != "regression" else {}
    return PreparedData(
        train=train.encoded(label_set),
        eval=evaluation.encoded(label_set),
        label_names=label_set.names,
        problem_type=label_set.problem_type,
        report=ValidationReport(total_samples=len(train.texts) + len(evaluation.texts), label_counts=counts),
        versions={"train": _content_id(train), "eval": _content_id(evaluation)},
        notes=tuple(notes),
    )


def _both_splits(
    source: SourceData, columns: Columns, config: DataConfig, seed: int, notes: list[str]
) -> tuple[_Split, _Split]:
    train = _canonical("train", source, columns, notes)
    for name in [name for name in (eval_split_name(source),) if name]:
        evaluation = _canonical(name, source, columns, notes, may_be_unlabelled=True)
        if evaluation.texts:
            notes.append(f"Evaluating on the split '{name}'.")
            return train, evaluation
    count = max(1, round(len(train.texts) * config.eval_fraction))
    held_in, held_out = hold_out(_keys(train), _strata(train), count, seed=seed)
    notes.append(
        f"No labelled validation split: {len(held_out)} rows held out (seed {seed}, stratified), "
        f"{len(train.texts) - len(held_in) - len(held_out)} copies of them left out of training."
    )
    if len(held_in) == 0 or len(held_out) == 0:
        raise EmptyDatasetError(
            f"{source.origin} has too few different rows to hold some out.", fix="Give a validation split or more rows."
        )
    return train.take(held_in), train.take(held_out, "validation")


def _canonical(
    name: str, source: SourceData, columns: Columns, notes: list[str], *, may_be_unlabelled: bool = False
) -> _Split:
    table = source.splits[name]
    missing = [column for column in (columns.text, columns.text_pair, columns.label) if column is not None]
    missing = [column for column in missing if column not in table.column_names]
    if missing:
        raise MissingColumnError(
            f"The {name} split has no column '{missing[0]}'; it has {', '.join(table.column_names[:20])}.",
            fix="Give every split the same columns.",
        )
    labels = canonical_labels(table[columns.label], source.label_names)
    rows = np.flatnonzero(labels.is_valid().to_numpy(zero_copy_only=False)).astype(np.int64)
    if len(rows) < len(labels) and len(rows):
        notes.append(f"{len(labels) - len(rows)} rows without a label left out of the {name} split.")
    if len(rows) == 0 and not may_be_unlabelled:
        raise EmptyDatasetError(f"No row of {source.origin} has a label.", fix="Name another data.label_column.")
    pairs = _texts(table, columns.text_pair) if columns.text_pair else None
    everything = _Split(name, _texts(table, columns.text), pairs, labels, np.arange(len(labels), dtype=np.int64))
    return everything.take(rows) if len(rows) < len(labels) else everything


def _texts(table: pa.Table, column: str) -> list[str]:
    import pyarrow as pa

    texts: list[str] = table[column].cast(pa.string()).fill_null("").to_pylist()
    return texts


def _choose(split: _Split, count: int | None, label_set: LabelSet, seed: int) -> _Split:
    if count is None or count >= len(split.texts):
        return split
    strata = _strata(split) if label_set.problem_type == "single_label_classification" else None
    return split.take(choose_rows(strata, count, rows=len(split.texts), seed=seed))


def _strata(split: _Split) -> NDArray[np.int64] | None:
    """Class of each row for a stratified choice; ``None`` where rows have no single class."""
    import pyarrow as pa

    if pa.types.is_list(split.labels.type):
        return None
    coded = split.labels.dictionary_encode()
    if len(coded.dictionary) > max(2, len(split.texts) // 2):
        return None
    order = np.argsort(np.argsort(np.asarray(coded.dictionary.to_pylist())))
    strata: NDArray[np.int64] = order[coded.indices.to_numpy(zero_copy_only=False)].astype(np.int64)
    return strata


def _keys(split: _Split) -> list[str]:
    if split.pairs is None:
        return split.texts
    return [f"{text}\0{pair}" for text, pair in zip(split.texts, split.pairs, strict=True)]


def _content_id(split: _Split) -> str:
    from blake3 import blake3

    digest = blake3()
    for text, label in zip(_keys(split), split.labels.to_pylist(), strict=True):
        digest.update(f"{text}\0{label}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]
