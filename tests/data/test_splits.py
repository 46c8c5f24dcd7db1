"""Choices of rows are seeded, stratified, and never leak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramill.data.splits import choose_rows, hold_out


def test_a_choice_is_the_same_on_every_machine() -> None:
    classes = np.asarray([0, 1] * 50)
    assert choose_rows(classes, 8, rows=100, seed=42).tolist() == [5, 26, 59, 60, 77, 78, 90, 93]
    assert choose_rows(None, 6, rows=100, seed=42).tolist() == [39, 44, 45, 53, 70, 83]
    assert choose_rows(classes, 8, rows=100, seed=43).tolist() != choose_rows(classes, 8, rows=100, seed=42).tolist()


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_class_gets_its_share(sizes: list[int], share: float, seed: int) -> None:
    classes = np.repeat(np.arange(len(sizes)), sizes)
    rows = len(classes)
    count = max(1, int(share * rows))
    chosen = choose_rows(classes, count, rows=rows, seed=seed)
    assert len(chosen) == min(count, rows)
    assert len(set(chosen.tolist())) == len(chosen)
    assert (np.diff(chosen) > 0).all()
    counts = np.bincount(classes[chosen], minlength=len(sizes))
    if count >= len(sizes):
        assert counts.min() >= 1
    exact = np.asarray(sizes) * count / rows
    if exact.min() >= 1:
        assert np.abs(counts - exact).max() <= 1


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=2, max_size=120),
    share=st.floats(0.05, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_text_stands_on_both_sides(rows: list[tuple[int, int]], share: float, seed: int) -> None:
    texts = [f"text {text}" for text, _ in rows]
    classes = np.asarray([label for _, label in rows])
    train, held_out = hold_out(texts, classes, max(1, int(share * len(rows))), seed=seed)
    in_train, in_held_out = {texts[row] for row in train}, [texts[row] for row in held_out]
    assert not in_train & set(in_held_out)
    assert len(set(in_held_out)) == len(in_held_out)
    for row in held_out.tolist():
        assert {label for text, label in rows if f"text {text}" == texts[row]} == {classes[row]}
    left_out = set(range(len(rows))) - set(train.tolist()) - set(held_out.tolist())
    assert all(texts[row] in in_held_out for row in left_out)


def test_a_class_with_one_text_stays_in_training() -> None:
    classes = np.asarray([0] * 20 + [1] * 20 + [2])
    texts = [f"text {row}" for row in range(41)]
    for seed in range(20):
        train, _ = hold_out(texts, classes, 10, seed=seed)
        assert 40 in train


def test_hashes_split_like_the_texts_they_stand_for() -> None:
    texts = [f"text {row % 70}" for row in range(100)]
    classes = np.asarray([row % 70 % 2 for row in range(100)])
    hashes = np.asarray([hash(text) for text in texts], dtype=np.int64).view(np.uint64)
    by_text, by_hash = hold_out(texts, classes, 10, seed=1), hold_out(hashes, classes, 10, seed=1)
    assert len(by_text[1]) == len(by_hash[1]) == 10
    assert not {texts[row] for row in by_hash[0]} & {texts[row] for row in by_hash[1]}


@pytest.mark.parametrize("count", [100, 1000])
def test_asking_for_all_gives_all(count: int) -> None:
    assert choose_rows(np.zeros(100, dtype=np.int64), count, rows=100, seed=0).tolist() == list(range(100))
