"""Batches: every token of every chosen row once, in its row, at its place; whatever the lengths."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loramill.engine.batching import FUSED_WIDTH, WIDTH_MULTIPLE, Batch, build_batch
from loramill.engine.token_rows import IntArray, TokenRows, batches_of_tokens

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=40)


def rows_with(lengths: list[int]) -> TokenRows:
    """Rows whose tokens are all different, so that each can be recognised."""
    total = sum(lengths)
    return TokenRows(
        token_ids=np.arange(1000, 1000 + total),
        type_ids=np.arange(total) % 2,
        starts=np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]),
    )


def row_tokens(rows: TokenRows, row: int) -> list[int]:
    return rows.token_ids[rows.starts[row] : rows.starts[row + 1]].tolist()


def batch_rows(batch: Batch) -> list[list[int]]:
    """The batch's rows, cut at the first tokens."""
    return [part.tolist() for part in np.split(batch.token_ids.numpy(), batch.first_tokens.numpy()[1:])]


@given(LENGTHS, st.randoms(use_true_random=False), st.sampled_from(["rows", "padded"]))
def test_rows_stand_end_to_end_in_the_chosen_order(lengths: list[int], random: object, attention: str) -> None:
    rows = rows_with(lengths)
    chosen = np.array(random.choices(range(len(lengths)), k=random.randint(1, 30)))  # type: ignore[attr-defined]
    batch = build_batch([(0, rows, chosen)], device=CPU, attention=attention)
    assert batch_rows(batch) == [row_tokens(rows, row) for row in chosen]
    assert batch.positions.tolist() == [place for row in chosen for place in range(lengths[row])]
    assert batch.type_ids.tolist() == [(token - 1000) % 2 for token in batch.token_ids.tolist()]
    assert batch.rows == len(chosen)
    assert batch.tokens == sum(lengths[row] for row in chosen)


@given(LENGTHS, st.sampled_from(["rows", "padded"]))
def test_places_hold_every_token_once_and_nothing_of_another_row(lengths: list[int], attention: str) -> None:
    rows = rows_with(lengths)
    batch = build_batch([(0, rows, np.arange(len(lengths)))], device=CPU, attention=attention)
    places = batch.places
    gather = torch.arange(batch.tokens) if places is None else places.gather
    if places is not None:
        assert torch.equal(places.gather[places.scatter], torch.arange(batch.tokens))
    order = list(range(len(lengths))) if places is None else places.order.tolist()
    assert sorted(order) == list(range(len(lengths)))
    assert batch.padded_tokens == len(gather)

    remaining, place, empty = iter(order), 0, []
    for bucket in batch.buckets:
        for line in range(bucket.rows):
            row, start = next(remaining), place + line * bucket.width
            tokens = batch.token_ids[gather[start : start + bucket.width]].tolist()
            padding = bucket.padding[line].tolist() if bucket.padding is not None else [False] * bucket.width
            assert [token for token, is_padding in zip(tokens, padding, strict=True) if not is_padding] == row_tokens(
                rows, row
            )
            assert set(tokens) == set(row_tokens(rows, row))
            empty += [start + column for column, is_padding in enumerate(padding) if is_padding]
        place += bucket.rows * bucket.width
    assert place == batch.padded_tokens
    assert empty == ([] if places is None else places.padding.tolist())


@given(LENGTHS)
def test_on_the_cpu_the_places_of_a_row_depend_on_its_own_length_alone(lengths: list[int]) -> None:
    some = [*lengths, *(length + FUSED_WIDTH - 12 for length in lengths)]
    batch = build_batch([(0, rows_with(some), np.arange(len(some)))], device=CPU)
    ordered, first, widths = sorted(some), 0, []
    for bucket in batch.buckets:
        for length in ordered[first : first + bucket.rows]:
            rounded = math.ceil(length / WIDTH_MULTIPLE) * WIDTH_MULTIPLE
            assert bucket.width == (rounded if rounded < FUSED_WIDTH else length)
        assert bucket.width < FUSED_WIDTH or bucket.padding is None
        first += bucket.rows
        widths.append(bucket.width)
    assert len(widths) == len(set(widths))


@given(st.integers(1, 12))
def test_rows_that_fill_their_places_stay_where_they_are(count: int) -> None:
    batch = build_batch([(0, rows_with([16] * count), np.arange(count))], device=CPU)
    assert batch.places is None
    assert [(bucket.rows, bucket.width, bucket.padding) for bucket in batch.buckets] == [(count, 16, None)]


@given(LENGTHS, st.integers(1, 40))
def test_filler_completes_the_multiple_and_reads_some_place(lengths: list[int], multiple: int) -> None:
    batch = build_batch([(0, rows_with(lengths), np.arange(len(lengths)))], device=CPU, multiple=multiple)
    assert 0 <= batch.filler < multiple
    assert (batch.tokens + batch.filler) % multiple == 0
    if batch.filler:
        assert batch.places is not None
        assert len(batch.places.scatter) == batch.tokens + batch.filler
        assert int(batch.places.scatter.max()) < batch.padded_tokens


@given(st.lists(LENGTHS, min_size=1, max_size=4))
def test_segments_cover_all_rows_and_tokens_in_order(parts: list[list[int]]) -> None:
    sources = [rows_with(lengths) for lengths in parts]
    batch = build_batch(
        [(7 - index, source, np.arange(len(source))) for index, source in enumerate(sources)], device=CPU
    )
    row = token = 0
    for index, (segment, lengths) in enumerate(zip(batch.segments, parts, strict=True)):
        assert segment.adapter == 7 - index
        assert (segment.first_row, segment.first_token) == (row, token)
        row, token = row + len(lengths), token + sum(lengths)
        assert (segment.last_row, segment.last_token) == (row, token)
    assert (row, token) == (batch.rows, batch.tokens)


@given(LENGTHS, st.integers(1, 100))
def test_batches_of_tokens_take_every_row_once_longest_first_within_the_budget(lengths: list[int], budget: int) -> None:
    array: IntArray = np.array(lengths)
    batches = batches_of_tokens(array, budget)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(array[order]) <= 0).all()
    for batch in batches:
        assert array[batch].sum() <= budget or len(batch) == 1


@given(LENGTHS, st.randoms(use_true_random=False))
def test_sorting_by_length_keeps_the_rows(lengths: list[int], random: object) -> None:
    rows = rows_with(lengths)
    chosen = np.array(random.sample(range(len(lengths)), k=random.randint(1, len(lengths))))  # type: ignore[attr-defined]
    by_length = rows.sorted_by_length(chosen)
    assert sorted(by_length.tolist()) == sorted(chosen.tolist())
    assert (np.diff(rows.lengths[by_length]) >= 0).all()


def test_no_rows_are_no_batches() -> None:
    assert batches_of_tokens(np.array([], dtype=np.int64), 10) == []
    assert len(TokenRows(np.empty(0, np.int64), np.empty(0, np.int64), np.zeros(1, np.int64))) == 0


@pytest.mark.parametrize("attention", ["rows", "padded"])
def test_rows_of_equal_length_need_no_padding(attention: str) -> None:
    batch = build_batch([(0, rows_with([16] * 20), np.arange(20))], device=CPU, attention=attention)
    assert batch.padded_tokens == batch.tokens == 320
    assert all(bucket.padding is None for bucket in batch.buckets)
