"""A diff says what happened to rows, as a person would count it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_rows import MakeRows, clean_texts
from loramill.data.diff import VersionDiff, diff_versions
from loramill.data.version_manager import DataVersionManager


@pytest.fixture
def manager(tmp_path: Path) -> DataVersionManager:
    return DataVersionManager(tmp_path / "data")


def counts(diff: VersionDiff) -> tuple[int, int, int, int]:
    return diff.unchanged, diff.added, diff.removed, diff.relabelled


def test_added_removed_and_relabelled_rows_are_told_apart(manager: DataVersionManager, make_rows: MakeRows) -> None:
    texts = clean_texts(2000)
    labels = ["good", "bad"] * 1000
    before = manager.create(make_rows(texts, labels)).version
    changed = list(labels)
    changed[100] = "awful"
    new_texts = [*texts[:50], *texts[53:], "one more", "and another"]
    new_labels = [*changed[:50], *changed[53:], "good", "good"]
    after = manager.create(make_rows(new_texts, new_labels)).version
    diff = diff_versions(manager, before, after)
    assert counts(diff) == (1996, 2, 3, 1)
    assert diff.relabelled_examples == [{"text": texts[100], "before": "good", "after": "awful"}]
    assert {row["text"] for row in diff.added_examples} == {"one more", "and another"}
    assert {row["text"] for row in diff.removed_examples} == set(texts[50:53])
    assert counts(diff_versions(manager, after, before)) == (1996, 3, 2, 1)


def test_order_does_not_count_and_repetition_does(manager: DataVersionManager, make_rows: MakeRows) -> None:
    texts = clean_texts(1000)
    labels = ["a"] * 1000
    first = manager.create(make_rows([*texts, texts[0]], [*labels, "a"])).version
    order = np.random.RandomState(0).permutation(1000)
    shuffled = manager.create(make_rows([texts[row] for row in order], labels)).version
    diff = diff_versions(manager, first, shuffled)
    assert counts(diff) == (1000, 0, 1, 0)
    assert diff.removed_examples == [{"text": texts[0], "label": "a"}]


def test_equal_versions_have_no_difference(manager: DataVersionManager, make_rows: MakeRows) -> None:
    version = manager.create(make_rows(clean_texts(500), pairs=clean_texts(500, seed=2))).version
    assert counts(diff_versions(manager, version, version)) == (500, 0, 0, 0)


def test_the_pair_is_part_of_the_row(manager: DataVersionManager, make_rows: MakeRows) -> None:
    texts, pairs = clean_texts(60), clean_texts(60, seed=2)
    before = manager.create(make_rows(texts, pairs=pairs)).version
    after = manager.create(make_rows(texts, pairs=[*pairs[:-1], "another second text"])).version
    assert counts(diff_versions(manager, before, after)) == (59, 1, 1, 0)
