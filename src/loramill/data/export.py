"""Rows to files: what restoring a version and cleaning a data set write. An existing file is never replaced unasked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from loramill.data.rows import SplitRows
from loramill.errors import ConflictError, DataError
from loramill.files import named_storage_errors

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


def write_table(table: pa.Table, path: Path, *, replace: bool = False) -> None:
    """Write rows as csv, tsv, jsonl or parquet, by the ending of the name; the file appears whole or not at all.

    Raises:
        ConflictError: the file exists, and ``replace`` is not said.
        DataError: another ending, or lists of labels for a format that has none.
        DiskFullError, UnwritableError: no file is left behind.
    """
    if path.suffix not in FORMATS:
        raise DataError(f"{path.name} has no ending that is known.", fix=f"Use one of {', '.join(FORMATS)}.")
    if path.exists() and not replace:
        raise ConflictError(f"{path} exists.", fix="Choose another name, or say --force to replace it.")
    with named_storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.part")
        try:
            _write(table, staged, path.suffix)
            staged.replace(path)
        finally:
            staged.unlink(missing_ok=True)


def source_table(rows: SplitRows) -> pa.Table:
    """Rows under the names that their source gives the columns."""
    import pyarrow as pa

    columns = {rows.columns.text: rows.texts}
    if rows.pairs is not None and rows.columns.text_pair is not None:
        columns[rows.columns.text_pair] = rows.pairs
    columns[rows.columns.label] = rows.labels
    return pa.table(columns)


def write_json_lines(records: Iterable[dict[str, object]], path: Path) -> None:
    """One JSON object a line."""
    with named_storage_errors(path), path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _write(table: pa.Table, path: Path, suffix: str) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    if suffix == ".parquet":
        parquet.write_table(table, path, compression="zstd")
    elif suffix == ".jsonl":
        write_json_lines(table.to_pylist(), path)
    else:
        if any(pa.types.is_list(field.type) for field in table.schema):
            raise DataError(f"{suffix} cannot hold lists of labels.", fix="Use .jsonl or .parquet.")
        csv.write_csv(table, path, csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ","))
