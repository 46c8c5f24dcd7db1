"""One file to one table: csv, tsv, jsonl and parquet, plain or compressed."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from loramill.errors import DataError, DatasetNotFoundError, EmptyDatasetError

if TYPE_CHECKING:
    import pyarrow as pa

COMPRESSIONS = (".gz", ".zst")


def read_table(path: Path) -> pa.Table:
    """Every row of a file.

    Raises:
        DatasetNotFoundError: no such file, or not a format that can be read.
        EmptyDatasetError: no rows.
        DataError: the content is broken; the message says where.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"{path} is not a file.", fix="Give a csv, tsv, jsonl or parquet file.")
    table = _reader(path)(path)
    if table.num_rows == 0:
        raise EmptyDatasetError(f"{path} has no rows.", fix="Give a file with a header and at least two rows.")
    return table


def file_format(path: Path) -> str | None:
    """``csv``, ``tsv``, ``jsonl`` or ``parquet``, by the name; ``None`` for others."""
    name = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    suffix = name.suffix.lower().lstrip(".")
    return suffix if suffix in _READERS else None


def _reader(path: Path) -> Callable[[Path], pa.Table]:
    known = file_format(path)
    if known is None:
        raise DatasetNotFoundError(
            f"{path.name} is not in a format that can be read.",
            fix="Use csv, tsv, jsonl or parquet (.gz and .zst too).",
        )
    return _READERS[known]


def _read_delimited(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    text = _content(path).decode("utf-8-sig", errors="replace")
    separator = "\t" if file_format(path) == "tsv" else _separator(text[:65536])
    header = next(iter(text[:65536].splitlines()), "").split(separator)
    try:
        return csv.read_csv(
            io.BytesIO(text.encode("utf-8")),
            parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types={name.strip('"'): pa.string() for name in header}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{path.name} is not a table: {error}.", fix="Correct the line that is named.") from None


def _read_json_lines(path: Path) -> pa.Table:
    import pyarrow as pa

    rows = []
    for number, line in enumerate(_content(path).decode("utf-8-sig", errors="replace").split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path.name}, line {number} is not JSON: {error}.", fix="Write one object a line."
                ) from None
    return pa.Table.from_pylist(rows)


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path.name} is not a parquet file: {error}.", fix="Write the file again.") from None


def _content(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        import pyarrow as pa

        with pa.input_stream(str(path), compression="zstd") as stream:
            return bytes(stream.read())
    return path.read_bytes()


def _separator(head: str) -> str:
    first = next(iter(head.splitlines()), "")
    return max((",", ";", "\t", "|"), key=first.count)


_READERS: dict[str, Callable[[Path], pa.Table]] = {
    "csv": _read_delimited,
    "tsv": _read_delimited,
    "jsonl": _read_json_lines,
    "parquet": _read_parquet,
}
