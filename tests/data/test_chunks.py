"""Chunks depend on content alone: equal rows are equal chunks, and a change stays where it is."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_rows import clean_texts
from loramill.data.chunks import (
    MAX_ROWS,
    MIN_ROWS,
    chunk_id_of,
    chunks_of,
    cut_points,
    decode_chunk,
    encode_chunk,
    rows_id,
)
from loramill.data.rows import hash_strings
from loramill.errors import CorruptFileError


def texts(values: list[str | None]) -> pa.LargeStringArray:
    return pa.array(values, pa.large_string())


def ids(column: pa.LargeStringArray) -> list[str]:
    return [chunk.id for chunk in chunks_of([column], hash_strings(column), lambda _: [])]


def test_an_insertion_changes_only_the_chunks_around_it() -> None:
    rows = clean_texts(20_000)
    before, after = ids(texts(rows)), ids(texts([*rows[:7000], "something new", *rows[7000:]]))
    assert len(before) > 40
    assert len(set(after) - set(before)) <= 2


def test_chunks_are_neither_tiny_nor_huge() -> None:
    hashes = np.random.RandomState(0).randint(0, 2**62, 50_000).astype(np.uint64)
    sizes = np.diff([0, *cut_points(hashes)])
    assert sizes.sum() == 50_000
    assert sizes.max() <= MAX_ROWS
    assert sizes[:-1].min() >= MIN_ROWS


@pytest.mark.parametrize("value", [0, 1])
def test_rows_that_are_all_the_same_are_cut_too(value: int) -> None:
    sizes = np.diff([0, *cut_points(np.full(10_000, value, dtype=np.uint64))])
    assert sizes.sum() == 10_000
    assert sizes.max() <= MAX_ROWS


def test_a_stored_beginning_is_used_again() -> None:
    column = texts(clean_texts(100))
    hashes = hash_strings(column)
    (whole,) = chunks_of([column], hashes, lambda _: [])
    beginning = encode_chunk([column], 0, 90)
    known = {int(hashes[0]): [(chunk_id_of(beginning), 90), ("0" * 32, 95)]}
    chunks = list(chunks_of([column], hashes, lambda first: known.get(first, [])))
    assert [(chunk.rows, chunk.first_row) for chunk in chunks] == [(90, 0), (10, 90)]
    assert chunks[0].id == chunk_id_of(beginning)
    assert whole.rows == 100


def test_a_changed_byte_is_noticed() -> None:
    column = texts(clean_texts(50))
    content = encode_chunk([column], 0, 50)
    damaged = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(CorruptFileError):
        decode_chunk(damaged, chunk_id_of(content))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.none() | st.text(max_size=20), st.none() | st.text(max_size=5)), min_size=1, max_size=60))
def test_rows_come_back_as_they_went_in(rows: list[tuple[str | None, str | None]]) -> None:
    columns = [texts([_storable(row[number]) for row in rows]) for number in (0, 1)]
    content = encode_chunk(columns, 0, len(rows))
    back = decode_chunk(content, chunk_id_of(content))
    assert [column.to_pylist() for column in back] == [column.to_pylist() for column in columns]


def test_an_id_tells_missing_from_empty_and_one_column_from_two() -> None:
    different = [
        [texts(["a", ""]), texts(["1", "0"])],
        [texts(["a", None]), texts(["1", "0"])],
        [texts(["", "a"]), texts(["1", "0"])],
        [texts(["a", ""]), texts([]), texts(["1", "0"])],
        [texts(["a", "", "1", "0"])],
    ]
    assert len({rows_id(columns) for columns in different}) == len(different)


def test_an_id_does_not_depend_on_where_the_arrays_lie() -> None:
    column = texts(clean_texts(300))
    parts = pa.concat_arrays([texts(["before"]), column]).slice(1)
    assert rows_id([parts]) == rows_id([column])
    assert encode_chunk([parts], 5, 20) == encode_chunk([column], 5, 20)


def _storable(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "replace").decode()
