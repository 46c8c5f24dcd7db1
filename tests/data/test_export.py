"""What is written can be read back, and nothing is overwritten unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from data_rows import Load, MakeRows
from loramill.data.export import source_table, write_table
from loramill.errors import ConflictError, DataError

TEXTS = ['plain, with "quotes"', "two\nlines", "=SUM(A1)", "好看；\t tab", " outer space "]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_written_rows_are_read_back(make_rows: MakeRows, load: Load, tmp_path: Path, ending: str) -> None:
    rows = make_rows(TEXTS, ["a", "b", "a", "b", "a"], pairs=[text.upper() for text in TEXTS])
    write_table(source_table(rows), tmp_path / f"rows{ending}")
    back = load(tmp_path / f"rows{ending}").splits["train"]
    assert back.texts.to_pylist() == TEXTS
    assert back.pairs.to_pylist() == rows.pairs.to_pylist()  # type: ignore[union-attr]
    assert back.labels.to_pylist() == rows.labels.to_pylist()


def test_an_existing_file_is_replaced_only_when_asked(make_rows: MakeRows, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("mine")
    table = source_table(make_rows(["a"], ["x"]))
    with pytest.raises(ConflictError):
        write_table(table, path)
    assert path.read_text() == "mine"
    write_table(table, path, replace=True)
    assert json.loads(path.read_text()) == {"text": "a", "label": "x"}


def test_formats_that_cannot_hold_the_rows_are_refused_without_a_file(make_rows: MakeRows, tmp_path: Path) -> None:
    table = source_table(make_rows(["a"], [["x", "y"]]))
    with pytest.raises(DataError, match="lists"):
        write_table(table, tmp_path / "rows.csv")
    with pytest.raises(DataError, match="ending"):
        write_table(pa.table({"a": [1]}), tmp_path / "rows.xlsx")
    assert list(tmp_path.iterdir()) == []
