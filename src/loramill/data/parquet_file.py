"""parquet: read in small batches, so that a file which expands without end is refused early."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loramill.data.tables import FileRows, clean_names
from loramill.data.text_input import ReadLimits
from loramill.errors import DataTooLargeError, UnreadableDataError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 8192


def read_parquet(path: Path, limits: ReadLimits) -> FileRows:
    """Every row of a parquet file.

    Raises:
        DataTooLargeError: beyond the limits.
        UnreadableDataError: it is none, or damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_columns > limits.max_columns:
                raise DataTooLargeError(
                    f"{path.name} has more than {limits.max_columns} columns.",
                    fix="Keep the columns of text and label only.",
                )
            batches = _bounded_batches(path, file.iter_batches(batch_size=ROWS_AT_ONCE), limits)
            table = pa.Table.from_batches(batches, schema=file.schema_arrow)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableDataError(
            f"{path.name} is no parquet file, or damaged: {error}.", fix="Write the file again."
        ) from None
    names, findings = clean_names(table.column_names)
    return FileRows(table.rename_columns(names), np.arange(table.num_rows, dtype=np.int64), tuple(findings))


def _bounded_batches(path: Path, batches: object, limits: ReadLimits) -> list[pa.RecordBatch]:
    kept: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:  # type: ignore[attr-defined]
        size += batch.nbytes
        if size > limits.max_bytes:
            raise DataTooLargeError(
                f"{path.name} has more than {limits.max_bytes / 2**30:.1f} GiB of rows.",
                fix="Split it into several files, or sample it first.",
            )
        kept.append(batch)
    return kept
