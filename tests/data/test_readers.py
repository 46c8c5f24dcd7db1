"""One door for every format."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from loramill.data.readers import file_format, plain_name, read_file
from loramill.data.text_input import ReadLimits
from loramill.errors import DatasetNotFoundError, DataTooLargeError, EmptyDatasetError, UnreadableDataError

LIMITS = ReadLimits()


@pytest.mark.parametrize(
    ("name", "known"),
    [("a.csv", "csv"), ("a.TSV", "tsv"), ("a.jsonl.gz", "jsonl"), ("a.parquet", "parquet"), ("a.csv.zst", "csv")],
)
def test_formats_are_known_by_their_names(name: str, known: str) -> None:
    assert file_format(Path(name)) == known
    assert plain_name(Path(name)).stem == "a"


@pytest.mark.parametrize("name", ["a.txt", "a.gz", "a", "csv", "a.xlsx"])
def test_other_names_are_no_format(tmp_path: Path, name: str) -> None:
    assert file_format(Path(name)) is None
    with pytest.raises(DatasetNotFoundError, match="format"):
        read_file(tmp_path / name, LIMITS)


def test_parquet_is_read_with_its_types(tmp_path: Path) -> None:
    table = pa.table({" text ": ["a", None], "label": [1, 0], "tags": [["x"], []]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    file = read_file(tmp_path / "rows.parquet", LIMITS)
    assert file.table.to_pydict() == {"text": ["a", None], "label": [1, 0], "tags": [["x"], []]}
    assert [finding.code for finding in file.findings] == ["header_damaged"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(500) + b"PAR1", b"text,label\na,1\n"])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(UnreadableDataError):
        read_file(tmp_path / "rows.parquet", LIMITS)


def test_parquet_that_expands_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["x" * 10_000] * 5_000, "label": [1] * 5_000}), tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").stat().st_size < 100_000
    with pytest.raises(DataTooLargeError):
        read_file(tmp_path / "rows.parquet", ReadLimits(max_bytes=1_000_000))
    wide = pa.table({f"c{number}": [1] for number in range(2_000)})
    parquet.write_table(wide, tmp_path / "wide.parquet")
    with pytest.raises(DataTooLargeError, match="columns"):
        read_file(tmp_path / "wide.parquet", LIMITS)


def test_files_without_rows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.parquet"):
        with pytest.raises(EmptyDatasetError):
            read_file(tmp_path / name, LIMITS)
    with pytest.raises(DatasetNotFoundError):
        read_file(tmp_path / "missing.csv", LIMITS)
