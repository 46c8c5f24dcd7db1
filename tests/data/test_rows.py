"""Rows in canonical form: texts, hashes and labels that mean the same on every machine."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from data_rows import MakeRows
from loramill.data.columns import Columns
from loramill.data.rows import canonical_rows, combine_hashes, hash_strings, slices
from loramill.data.tables import FileRows
from loramill.errors import MissingColumnError

COLUMNS = Columns("text", None, "label")


def rows_from(column: pa.Array | pa.ChunkedArray) -> list[str | None]:
    table = pa.table({"text": column, "label": [1] * len(column)})
    return canonical_rows("train", FileRows(table, np.arange(len(column))), COLUMNS).texts.to_pylist()


def test_texts_of_any_type_become_text() -> None:
    assert rows_from(pa.array(["a", None])) == ["a", None]
    assert rows_from(pa.array(["a", "b", "a"]).dictionary_encode()) == ["a", "b", "a"]
    assert rows_from(pa.chunked_array([["a"], ["b"]])) == ["a", "b"]
    assert rows_from(pa.array([1, 2])) == ["1", "2"]
    assert rows_from(pa.array([b"caf\xc3\xa9", b"caf\xe9", None])) == ["café", "caf\ufffd", None]


def test_lists_are_no_texts() -> None:
    with pytest.raises(MissingColumnError, match="lists"):
        rows_from(pa.array([["a"], ["b"]]))


def test_hashes_are_the_same_everywhere() -> None:
    texts = pa.array(["", "a", "好看", None], pa.large_string())
    assert hash_strings(texts).tolist() == [
        3244421341483603138,
        16629034431890738719,
        9246520139620439203,
        3244421341483603138,
    ]
    assert hash_strings(texts.slice(1, 2)).tolist() == hash_strings(texts).tolist()[1:3]


def test_the_order_of_text_and_pair_counts() -> None:
    first, second = np.asarray([1], dtype=np.uint64), np.asarray([2], dtype=np.uint64)
    assert combine_hashes(first, second) != combine_hashes(second, first)


def test_taken_rows_keep_their_place_in_the_source(make_rows: MakeRows) -> None:
    rows = make_rows(["a", "b", "c"], ["x", None, "y"], pairs=["d", "e", "f"])
    taken = rows.take(np.asarray([2, 1]))
    assert taken.texts.to_pylist() == ["c", "b"]
    assert taken.pairs.to_pylist() == ["f", "e"]  # type: ignore[union-attr]
    assert taken.row_ids.tolist() == [2, 1]
    assert taken.is_labelled.tolist() == [True, False]
    assert taken.text_hashes.tolist() == rows.text_hashes[[2, 1]].tolist()


def test_equal_labels_have_equal_codes(make_rows: MakeRows) -> None:
    assert make_rows(["a", "b", "c"], ["x", None, "x"]).label_codes.tolist() == [0, -1, 0]
    several = make_rows(["a", "b", "c"], [["x", "y"], ["y", "x"], []]).label_codes
    assert several[0] == several[1] != several[2]


def test_slices_cover_all_rows() -> None:
    assert list(slices(10, 4)) == [(0, 4), (4, 4), (8, 2)]
    assert list(slices(0, 4)) == []
