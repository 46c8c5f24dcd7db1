"""Rows in the one form that checks, versions and training share: text, pair and canonical label."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loramill.arrays import from_numpy, or_empty, strings, to_numpy, valid_rows
from loramill.data.columns import Columns
from loramill.data.labels import canonical_labels
from loramill.data.tables import FileRows
from loramill.errors import MissingColumnError

if TYPE_CHECKING:
    import pyarrow as pa

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class SplitRows:
    """One split, in the order of the source.

    Attributes:
        texts: large_string ``[rows]``; null where the source has no value.
        pairs: the second text of each row, likewise; ``None`` when rows are no pairs.
        labels: canonical labels: string ``[rows]``, or list of strings for several a row; null where there is none.
        row_ids: 0-based row in the source ``[rows]``.
        columns: what the source calls these columns.
    """

    name: str
    texts: pa.LargeStringArray
    pairs: pa.LargeStringArray | None
    labels: pa.Array
    row_ids: NDArray[np.int64]
    columns: Columns

    def __len__(self) -> int:
        return len(self.row_ids)

    def take(self, rows: NDArray[np.int64]) -> SplitRows:
        """These rows, in this order."""
        chosen = from_numpy(rows)
        pairs = None if self.pairs is None else self.pairs.take(chosen)
        return replace(
            self,
            texts=self.texts.take(chosen),
            pairs=pairs,
            labels=self.labels.take(chosen),
            row_ids=self.row_ids[rows],
        )

    @property
    def text_columns(self) -> list[tuple[str, pa.LargeStringArray]]:
        """(name in the source, texts) of the text and, where there is one, its pair."""
        columns = [(self.columns.text, self.texts)]
        if self.pairs is not None and self.columns.text_pair is not None:
            columns.append((self.columns.text_pair, self.pairs))
        return columns

    @property
    def has_several_labels(self) -> bool:
        import pyarrow as pa

        return bool(pa.types.is_list(self.labels.type))

    @cached_property
    def is_labelled(self) -> NDArray[np.bool_]:
        """Whether each row has a label ``[rows]``."""
        return valid_rows(self.labels)

    @cached_property
    def text_hashes(self) -> Hashes:
        """64 bits for each row's text and pair ``[rows]``: equal for copies, and the same on every machine."""
        hashes = hash_strings(self.texts)
        return hashes if self.pairs is None else combine_hashes(hashes, hash_strings(self.pairs))

    @cached_property
    def label_codes(self) -> NDArray[np.int64]:
        """A number for each row's label ``[rows]``, equal for equal labels within this split; -1 for none."""
        flat = self.labels
        if self.has_several_labels:
            flat = strings([None if row is None else "\0".join(sorted(row)) for row in flat.to_pylist()])
        return np.where(valid_rows(flat), to_numpy(flat.dictionary_encode().indices), -1).astype(np.int64)


def canonical_rows(name: str, file: FileRows, columns: Columns, label_names: Sequence[str] | None = None) -> SplitRows:
    """A split of a source in canonical form; a test split may come without labels.

    Raises:
        MissingColumnError: the split lacks one of the columns.
    """
    import pyarrow as pa

    table = file.table
    if name == "test" and columns.label not in table.column_names:
        table = table.append_column(columns.label, pa.nulls(len(table)))
    for column in (columns.text, columns.text_pair, columns.label):
        if column is not None and column not in table.column_names:
            raise MissingColumnError(
                f"The {name} split has no column '{column}'; it has {', '.join(table.column_names[:20])}.",
                fix="Give every split the same columns.",
            )
    labels = table[columns.label]
    return SplitRows(
        name=name,
        texts=_texts(table[columns.text]),
        pairs=_texts(table[columns.text_pair]) if columns.text_pair else None,
        labels=_stored_labels(labels) if file.is_stored else canonical_labels(labels, label_names),
        row_ids=file.row_ids,
        columns=columns,
    )


def hash_strings(texts: pa.LargeStringArray) -> Hashes:
    """XXH3 of each text's UTF-8 bytes ``[rows]``; a null hashes like an empty text."""
    from xxhash import xxh3_64_intdigest

    data, offsets = string_buffers(texts)
    edges = offsets.tolist()
    return np.fromiter(
        (xxh3_64_intdigest(data[start:end]) for start, end in itertools.pairwise(edges)),
        dtype=np.uint64,
        count=len(texts),
    )


def hash_repeated_strings(texts: pa.LargeStringArray) -> Hashes:
    """``hash_strings`` for a column with few different values, such as labels: each is hashed once."""
    coded = or_empty(texts).dictionary_encode()
    hashes: Hashes = hash_strings(coded.dictionary)[to_numpy(coded.indices)]
    return hashes


def string_buffers(texts: pa.LargeStringArray) -> tuple[memoryview, NDArray[np.int64]]:
    """(UTF-8 bytes, offsets ``[rows + 1]`` into them) without a copy; slots of nulls are empty."""
    offsets = np.frombuffer(texts.buffers()[1] or b"", dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = texts.buffers()[2]
    return memoryview(data if data is not None else b""), offsets if len(offsets) else np.zeros(1, dtype=np.int64)


def combine_hashes(first: Hashes, second: Hashes) -> Hashes:
    """One hash for two, in which their order counts."""
    mixed: Hashes = (first ^ (first >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + second
    return mixed


def slices(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, length) of consecutive parts of at most ``size`` rows."""
    for start in range(0, rows, size):
        yield start, min(size, rows - start)


def _stored_labels(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    return column.combine_chunks() if pa.types.is_list(column.type) else column.cast(pa.string()).combine_chunks()


def _texts(column: pa.ChunkedArray) -> pa.LargeStringArray:
    """A column as text in one piece; bytes that are not UTF-8 become U+FFFD."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if pa.types.is_nested(kind):
        raise MissingColumnError(
            "The text column holds lists or objects, not texts.", fix="Name another one with data.text_column."
        )
    try:
        flat = column.cast(pa.large_string())
        flat.validate(full=True)
    except pa.ArrowInvalid:
        raw = column.cast(pa.large_binary()).to_pylist()
        flat = pa.chunked_array([strings([None if text is None else text.decode("utf-8", "replace") for text in raw])])
    combined = flat.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
