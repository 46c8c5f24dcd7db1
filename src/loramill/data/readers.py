"""One file to one table: csv, tsv, jsonl and parquet, plain or compressed (.gz, .zst)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loramill.data.delimited import read_delimited
from loramill.data.json_lines import read_json_lines
from loramill.data.parquet_file import read_parquet
from loramill.data.tables import FileRows
from loramill.data.text_input import COMPRESSIONS, ReadLimits
from loramill.errors import DatasetNotFoundError, EmptyDatasetError, PermissionDeniedError

Reader = Callable[[Path, ReadLimits], FileRows]
FORMATS: Mapping[str, Reader] = {
    "csv": read_delimited,
    "tsv": read_delimited,
    "jsonl": read_json_lines,
    "parquet": read_parquet,
}


def read_file(path: Path, limits: ReadLimits) -> FileRows:
    """Every row of a file.

    Raises:
        DatasetNotFoundError: no such file, or not a format that can be read.
        EmptyDatasetError: no rows.
        UnreadableDataError: it is broken, or not what its name says.
        DataTooLargeError: beyond the limits.
    """
    known = file_format(path)
    if known is None:
        raise DatasetNotFoundError(
            f"{path.name} is not in a format that can be read.", fix="Use csv, tsv, jsonl or parquet (.gz, .zst too)."
        )
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no file"
        raise DatasetNotFoundError(f"{path} is {kind}.", fix="Give a csv, tsv, jsonl or parquet file.")
    rows = FORMATS[known](path, limits)
    if rows.table.num_rows == 0:
        raise EmptyDatasetError(f"{path.name} has no rows.", fix="Give a file with a header and at least two rows.")
    return rows


def file_format(path: Path) -> str | None:
    """``csv``, ``tsv``, ``jsonl`` or ``parquet``, by the name; ``None`` for others."""
    suffix = plain_name(path).suffix.lower().lstrip(".")
    return suffix if suffix in FORMATS else None


def plain_name(path: Path) -> Path:
    """The path without the ending of a compression."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path


def require_allowed(path: Path, allowed_folders: Sequence[Path] | None) -> None:
    """Refuse a path outside the folders that the caller may read; links are followed first.

    Raises:
        PermissionDeniedError: the message does not say whether the path exists.
    """
    if allowed_folders is None:
        return
    resolved = path.resolve()
    if not any(resolved.is_relative_to(folder.resolve()) for folder in allowed_folders):
        raise PermissionDeniedError(
            f"{path} is outside the folders that may be read.", fix="Upload the file, or put it in the data folder."
        )
