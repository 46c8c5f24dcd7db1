"""jsonl: good lines become rows, bad lines become findings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loramill.data.json_lines import ROWS_AT_ONCE, read_json_lines
from loramill.data.tables import FileRows
from loramill.data.text_input import ReadLimits
from loramill.errors import DataTooLargeError, EmptyDatasetError, UnreadableDataError


def read(path: Path, lines: list[str]) -> FileRows:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_json_lines(path, ReadLimits())


def test_values_keep_their_types_and_missing_keys_are_null(tmp_path: Path) -> None:
    file = read(tmp_path / "rows.jsonl", ['{"text": "a", "label": 1}', "", '{"text": "b", "tags": ["x", "y"]}'])
    assert file.table.to_pylist() == [
        {"text": "a", "label": 1, "tags": None},
        {"text": "b", "label": None, "tags": ["x", "y"]},
    ]


def test_values_of_several_types_become_text(tmp_path: Path) -> None:
    file = read(tmp_path / "rows.jsonl", ['{"text": "a"}', '{"text": 5}', '{"text": {"b": 1}}', '{"text": null}'])
    assert file.table["text"].to_pylist() == ["a", "5", '{"b": 1}', None]


def test_types_that_differ_between_parts_of_a_long_file_agree(tmp_path: Path) -> None:
    lines = [f'{{"text": "t", "label": {number}}}' for number in range(ROWS_AT_ONCE)] + ['{"text": "t", "label": "x"}']
    labels = read(tmp_path / "rows.jsonl", lines).table["label"].to_pylist()
    assert labels[1] == "1"
    assert labels[-1] == "x"


def test_bad_lines_are_findings_with_their_row(tmp_path: Path) -> None:
    good = '{"text": "a", "label": 1}'
    deep = '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}"
    file = read(tmp_path / "rows.jsonl", [good, '{"text": "cut', good, "[1, 2]", good, deep, good, good, good])
    assert [(finding.code, finding.row) for finding in file.findings] == [
        ("json_invalid", 1),
        ("json_not_object", 3),
        ("json_invalid", 5),
    ]
    assert file.row_ids.tolist() == [0, 2, 4, 6, 7, 8]


def test_half_a_character_becomes_a_replacement_character(tmp_path: Path) -> None:
    file = read(tmp_path / "rows.jsonl", ['{"text": "half \\ud83d of it"}', '{"text": "\\ud83d\\ude00"}'])
    assert file.table["text"].to_pylist() == ["half \ufffd of it", "😀"]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([], EmptyDatasetError),
        (['[{"text": "a"}]'], UnreadableDataError),
        (["[" * 1_000_000], UnreadableDataError),
        (["not json"] * 5 + ['{"text": "a"}'], UnreadableDataError),
        ([json.dumps({f"c{number}": 1 for number in range(100_000)})], DataTooLargeError),
        ([json.dumps({f"c{number}": 1}) for number in range(2_000)], DataTooLargeError),
    ],
    ids=["empty", "one array", "deep", "mostly no json", "wide", "ever other keys"],
)
def test_what_is_no_jsonl_is_refused(tmp_path: Path, lines: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        read(tmp_path / "rows.jsonl", lines)
