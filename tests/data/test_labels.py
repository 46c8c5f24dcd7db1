"""Labels have one spelling and one order, whatever file they come from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from loramill.data.labels import LabelSet, canonical_labels, count_labels, encode_labels, find_label_set
from loramill.errors import LabelError


def canonical(values: list[object], names: tuple[str, ...] | None = None, kind: pa.DataType | None = None) -> pa.Array:
    return canonical_labels(pa.chunked_array([pa.array(values, kind)]), names)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([0, 1, None], ["0", "1", None]),
        ([0.0, 1.0, float("nan")], ["0", "1", None]),
        (["0", "1.0", ""], ["0", "1", None]),
        ([True, False], ["true", "false"]),
        (["True", "FALSE", "false", ""], ["true", "false", "false", None]),
        ([" good ", "bad", "  "], ["good", "bad", None]),
        ([0.1, 0.25], ["0.1", "0.25"]),
        (["0.10", "2.0"], ["0.1", "2"]),
        (["01", "1", "10"], ["01", "1", "10"]),
        (["1_2", "12"], ["1_2", "12"]),
        (["9007199254740992", "9007199254740993.0"], ["9007199254740992", "9007199254740993"]),
        ([2**53, 2**53 + 1], ["9007199254740992", "9007199254740993"]),
        (["+1", "-0", "1e3"], ["1", "0", "1000"]),
        ([[1, 2], [], None], [["1", "2"], [], None]),
        ([["joy", ""], ["joy", None], [None], ["calm"]], [["joy"], ["joy"], [], ["calm"]]),
        ([[0, 1, 0, 1], [0, 0, 0, 0], None, [1, 0, 0, 0]], [["1", "3"], [], None, ["0"]]),
        ([[0.0, 1.0], [1.0, None]], [["1"], ["0"]]),
        ([[True, True], [False, True]], [["0", "1"], ["1"]]),
        ([["0", "1"], ["1", "0"]], [["0", "1"], ["1", "0"]]),
        ([[0], [1], [0]], [["0"], ["1"], ["0"]]),
        ([[0, 1], [1]], [["0", "1"], ["1"]]),
        ([[0, 2], [1, 0]], [["0", "2"], ["1", "0"]]),
        (["1", "two"], ["1", "two"]),
        ([1e9, float("inf")], ["1000000000", None]),
    ],
)
def test_a_label_has_one_spelling(written: list[object], expected: list[object]) -> None:
    spelled = canonical(written)
    assert spelled.to_pylist() == expected
    assert canonical_labels(spelled).to_pylist() == expected
    assert [canonical_labels(spelled.slice(row, 1))[0].as_py() for row in range(len(spelled))] == expected


@pytest.mark.parametrize(
    "values",
    [[[[1]], [[0]]], [[{"name": "a"}]], [{"name": "a"}], [b"\xff"]],
    ids=["lists", "objects", "object", "bytes"],
)
def test_what_is_no_label_is_refused_by_name(values: list[object]) -> None:
    with pytest.raises(LabelError, match="not labels") as caught:
        canonical(values)
    assert "data.label_column" in str(caught.value.fix)


def test_numbers_of_declared_classes_outside_their_names_are_no_labels() -> None:
    assert canonical([0, 1, -1], ("bad", "good")).to_pylist() == ["0", "1", None]


def test_vectors_of_a_fixed_size_are_read_like_lists() -> None:
    column = pa.chunked_array([pa.array([[0, 1, 1], [1, 0, 0]], pa.list_(pa.int8(), 3))])
    assert canonical_labels(column).to_pylist() == [["1", "2"], ["0"]]
    assert canonical_labels(column, ("bad", "good")).to_pylist() == [["0", "1", "1"], ["1", "0", "0"]]


def test_a_dictionary_column_is_read_like_its_values() -> None:
    column = pa.chunked_array([pa.array(["a", "b", "a"]).dictionary_encode()])
    assert canonical_labels(column).to_pylist() == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("labels", "num_labels", "values", "problem"),
    [
        (["b", "a"], None, ("a", "b"), "single_label_classification"),
        ([10, 2, 1], None, ("1", "2", "10"), "single_label_classification"),
        ([0, 2], 3, ("0", "1", "2"), "single_label_classification"),
        (["01", "10", "02"], 3, ("01", "02", "10"), "single_label_classification"),
        ([-1, 1], 2, ("-1", "1"), "single_label_classification"),
        ([0.5, 1.0], None, ("score",), "regression"),
        ([0, 1, 2], 1, ("score",), "regression"),
        ([["b"], ["a", "c"]], None, ("a", "b", "c"), "multi_label_classification"),
        ([["a"], ["a"]], 1, ("a",), "multi_label_classification"),
    ],
)
def test_the_kind_of_problem_is_found(
    labels: list[object], num_labels: int | None, values: tuple[str, ...], problem: str
) -> None:
    found = find_label_set(canonical(labels), num_labels=num_labels)
    assert (found.values, found.problem_type) == (values, problem)


def test_declared_names_keep_their_order() -> None:
    found = find_label_set(canonical([1, 0], ("world", "art")), num_labels=None, names=("world", "art"))
    assert (found.names, found.values) == (("world", "art"), ("0", "1"))


@pytest.mark.parametrize(
    ("labels", "num_labels", "message"),
    [
        (["a", "b", "c"], 2, "3 classes: a, b, c"),
        (["a", "b"], 3, "2 classes"),
        ([0, 5], 3, "2 classes"),
        (["a", "b"], 1, "regression"),
        ([0.5, 1.5], 2, "regression"),
        (["a", "a"], None, "same label"),
        ([f"id {number}" for number in range(10_001)], None, "10,001 different"),
    ],
)
def test_labels_that_do_not_fit_the_model_are_refused(
    labels: list[object], num_labels: int | None, message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        find_label_set(canonical(labels), num_labels=num_labels)


def test_labels_become_numbers() -> None:
    classes = LabelSet(("1", "2", "10"), ("1", "2", "10"), "single_label_classification")
    encoded = encode_labels(canonical([10, 1, 2]), classes, "train")
    assert (encoded.tolist(), encoded.dtype) == ([2, 0, 1], np.int64)
    numbers = encode_labels(canonical([0.5, 2]), LabelSet(("score",), ("score",), "regression"), "train")
    assert (numbers.tolist(), numbers.dtype) == ([0.5, 2.0], np.float32)
    several = LabelSet(("a", "b"), ("a", "b"), "multi_label_classification")
    rows = encode_labels(canonical([["b"], [], ["a", "b"]]), several, "train")
    assert (rows.tolist(), rows.dtype) == ([[0, 1], [0, 0], [1, 1]], np.float32)


def test_a_slice_of_lists_is_encoded_from_its_own_rows() -> None:
    several = LabelSet(("a", "b"), ("a", "b"), "multi_label_classification")
    labels = canonical([["a"], ["b"], ["a", "b"]]).slice(1)
    assert encode_labels(labels, several, "train").tolist() == [[0, 1], [1, 1]]
    assert count_labels(labels) == {"a": 1, "b": 2}


def test_a_label_that_training_lacks_is_named() -> None:
    classes = LabelSet(("a", "b"), ("a", "b"), "single_label_classification")
    with pytest.raises(LabelError, match=r"validation split.*: c"):
        encode_labels(canonical(["a", "c"]), classes, "validation")


def test_numbers_are_counted_in_their_order() -> None:
    assert list(count_labels(canonical([10, 2, 2, None, 1]))) == ["1", "2", "10"]
