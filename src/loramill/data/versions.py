"""What a data version is: its description, and the columns that stand for its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from loramill.arrays import strings
from loramill.data.labels import count_labels
from loramill.data.rows import SplitRows

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class DataVersion:
    """One immutable set of rows.

    Attributes:
        id: BLAKE3 of the rows, 32 hexadecimal digits; the same rows have the same id, whatever file they came in.
        columns: ``text``, perhaps ``text_pair``, ``label``.
        label_names: class names in the order of their numbers, when the source declares them.
        label_counts: canonical label -> rows.
        characters: ``min``, ``mean`` and ``max`` characters of a text.
        parents: ids of the versions that this one was made from.
        cleaning: what cleaning changed: rule -> rows; the row-by-row record lies beside the cleaned file.
        chunks: (id, rows) of each chunk, in order.
    """

    id: str
    created_at: str
    rows: int
    columns: tuple[str, ...]
    several_labels: bool
    label_counts: Mapping[str, int]
    characters: Mapping[str, float]
    chunks: tuple[tuple[str, int], ...]
    label_names: tuple[str, ...] | None = None
    description: str = ""
    source: str = ""
    parents: tuple[str, ...] = ()
    cleaning: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Everything but the list of chunks."""
        return {key: value for key, value in asdict(self).items() if key != "chunks"}


@dataclass(frozen=True)
class Stored:
    """The outcome of ``DataVersionManager.create``.

    Attributes:
        is_new: false when the same rows were there already.
        stored_bytes: bytes of rows that this version added on disk.
    """

    version: DataVersion
    is_new: bool
    stored_bytes: int


def stored_columns(rows: SplitRows) -> dict[str, pa.LargeStringArray]:
    columns = {"text": rows.texts}
    if rows.pairs is not None:
        columns["text_pair"] = rows.pairs
    columns["label"] = label_texts(rows.labels)
    return columns


def label_texts(labels: pa.Array) -> pa.LargeStringArray:
    """Labels as one text each; several labels of a row as a JSON list."""
    import pyarrow as pa

    if pa.types.is_list(labels.type):
        texts = [None if row is None else json.dumps(row, ensure_ascii=False) for row in labels.to_pylist()]
        return strings(texts)
    return labels.cast(pa.large_string())


def with_label_lists(table: pa.Table) -> pa.Table:
    """A stored table with its label column as lists again."""
    import pyarrow as pa

    lists = [None if text is None else json.loads(text) for text in table["label"].to_pylist()]
    return table.set_column(table.num_columns - 1, "label", pa.array(lists, pa.list_(pa.string())))


def describes(version: DataVersion, table: pa.Table) -> bool:
    """Whether a description fits its rows, as they are stored: one text a column."""
    try:
        labels = with_label_lists(table)["label"] if version.several_labels else table["label"]
    except (ValueError, TypeError):  # the labels are no lists
        return False
    return len(table) == version.rows and label_counts(labels.combine_chunks()) == version.label_counts


def label_counts(labels: pa.Array, most: int = 1000) -> dict[str, int]:
    """Rows of each label; nothing for regression and the like, where nearly every label is another one."""
    counts = count_labels(labels)
    return counts if len(counts) <= most else {}


def character_statistics(rows: SplitRows) -> dict[str, float]:
    import pyarrow.compute as pc

    lengths = pc.utf8_length(rows.texts)
    extremes = pc.min_max(lengths).as_py()
    mean = pc.mean(lengths).as_py()
    return {"min": extremes["min"] or 0, "mean": round(mean or 0.0, 1), "max": extremes["max"] or 0}


def one_array(column: Any) -> pa.LargeStringArray:
    import pyarrow as pa

    combined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
