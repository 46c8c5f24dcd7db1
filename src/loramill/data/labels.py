"""Labels: from whatever a source writes to class numbers, and back.

A label has one canonical spelling (``1``, ``1.0`` and ``"1"`` are all ``"1"``), so that the same rows read from
csv and from parquet are the same rows. Codes such as ``"01"`` are names, and stay as they are written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from loramill.arrays import from_numpy, strings, to_numpy, valid_rows
from loramill.errors import LabelError

if TYPE_CHECKING:
    import pyarrow as pa

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
MAX_CLASSES = 10_000
BINARY = ({"0", "1"}, {"false", "true"})
TRUTH = {"false": "0", "true": "1"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
PADDED = re.compile(r"[+-]?0\d.*", re.ASCII)
"""A number with zeros before it, as codes have them."""


@dataclass(frozen=True)
class LabelSet:
    """What the labels of a data set mean.

    Attributes:
        values: canonical label of each class, in the order of the class numbers.
        names: what a person calls each class; the same as ``values`` unless the source declares names.
    """

    values: tuple[str, ...]
    names: tuple[str, ...]
    problem_type: ProblemType

    @property
    def numbers(self) -> dict[str, int]:
        return {value: number for number, value in enumerate(self.values)}


def canonical_labels(column: pa.ChunkedArray, names: Sequence[str] | None = None) -> pa.Array:
    """Labels in their canonical spelling: strings, or lists of strings; null where there is none.

    Vectors of the numbers 0 and 1, one place for each class, become lists of the classes that have a 1.

    Args:
        column: labels as a reader gave them.
        names: class names of the source, when integers stand for them; others (``-1``) then mean "no label".

    Raises:
        LabelError: the column holds objects, lists of lists, or bytes that are no text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(flat.type):
        flat = flat.dictionary_decode()
    if pa.types.is_fixed_size_list(flat.type):
        flat = flat.cast(pa.list_(flat.type.value_type))
    if pa.types.is_list(flat.type) or pa.types.is_large_list(flat.type):
        edges = to_numpy(flat.offsets) - flat.offsets[0].as_py()
        if pa.types.is_nested(flat.type.value_type):
            raise _not_labels(flat.type)
        inner = canonical_labels(flat.flatten(), names)
        if not names and _is_numeric_type(flat.type.value_type):
            inner = _from_multi_hot(inner, np.diff(edges)[valid_rows(flat)])
        offsets = np.concatenate([[0], np.cumsum(valid_rows(inner))])[edges]
        return pa.ListArray.from_arrays(from_numpy(offsets).cast(pa.int32()), inner.drop_null(), mask=flat.is_null())
    if pa.types.is_floating(flat.type):
        flat = pc.if_else(pc.is_finite(flat), flat, pa.nulls(len(flat), flat.type))
    try:
        coded = flat.cast(pa.string()).dictionary_encode()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _not_labels(flat.type) from None
    spelling = _spellings(coded.dictionary.to_pylist(), names)
    return strings(spelling).cast(pa.string()).take(coded.indices)


def find_label_set(labels: pa.Array, *, num_labels: int | None, names: Sequence[str] | None = None) -> LabelSet:
    """Decide what kind of problem the training labels pose, and number the classes.

    Numbers keep their order (``"2"`` before ``"10"``), other names are sorted. Numbers with a fraction, or
    ``num_labels`` of 1, make it a regression.

    Args:
        labels: canonical labels of the training rows, none null.
        num_labels: ``model.num_labels``, when it is given.
        names: class names that the source declares, in their order.

    Raises:
        LabelError: the labels do not fit ``num_labels``, or there are too many classes.
    """
    import pyarrow as pa

    several = pa.types.is_list(labels.type)
    seen = [str(name) for name in (labels.flatten() if several else labels).unique().to_pylist() if name is not None]
    values = _numeric(seen)
    if not several and values and (num_labels == 1 or any(not value.is_integer() for value in values.values())):
        return _regression(num_labels)
    if num_labels == 1 and not several:
        raise LabelError(
            "model.num_labels is 1 (regression), but the labels are not numbers.",
            fix=f"Remove model.num_labels, or set it to {len(seen)}.",
        )
    declared = [str(number) for number in range(len(names))] if names else None
    ordered = declared or _in_order(seen, values, num_labels)
    _check_class_count(ordered, num_labels)
    problem: ProblemType = "multi_label_classification" if several else "single_label_classification"
    return LabelSet(tuple(ordered), tuple(names or ordered), problem)


def encode_labels(labels: pa.Array, label_set: LabelSet, split: str) -> NDArray[np.int64] | NDArray[np.float32]:
    """Labels as numbers: int64 ``[rows]``, float32 ``[rows]`` (regression) or float32 ``[rows, classes]``.

    Raises:
        LabelError: a label that the training split does not have.
    """
    if label_set.problem_type == "regression":
        return _encode_numbers(labels, split)
    if label_set.problem_type == "multi_label_classification":
        return _encode_lists(labels, label_set, split)
    coded = labels.dictionary_encode()
    numbers = _numbers_of(coded.dictionary.to_pylist(), label_set, split)
    encoded: NDArray[np.int64] = numbers[to_numpy(coded.indices)]
    return encoded


def count_labels(labels: pa.Array) -> dict[str, int]:
    """Canonical label -> rows, numbers in their order."""
    import pyarrow as pa

    flat = labels.flatten() if pa.types.is_list(labels.type) else labels
    counts: Mapping[str, int] = {
        str(entry["values"]): entry["counts"] for entry in flat.drop_null().value_counts().to_pylist()
    }
    return {name: counts[name] for name in _in_order(list(counts), _numeric(list(counts)), None)}


def preferred_spellings(*counts: Mapping[str, int]) -> dict[str, str]:
    """Label -> the most frequent label that differs from it only in case, blanks, hyphens and underscores.

    Where all labels are truth values and 0 and 1, those are two spellings of the same, too.

    Args:
        counts: label -> rows, for each split; a spelling of an earlier one goes before all of later ones.
    """
    common: dict[str, str] = {}
    seen = {label: _folded(label) for counted in counts for label in counted}
    if all(folded in ("0", "1", *TRUTH) for folded in seen.values()):
        seen = {label: TRUTH.get(folded, folded) for label, folded in seen.items()}
    for counted in counts:
        for label in sorted(counted, key=lambda label: (label.casefold() in TRUTH, -counted[label], label)):
            common.setdefault(seen[label], label)
    return {label: common[folded] for label, folded in seen.items()}


def canonical_number(label: str) -> float | None:
    """The finite number that a label stands for, or ``None``."""
    value = float(label) if NUMBER.fullmatch(label) else math.nan
    return value if math.isfinite(value) else None


def _folded(label: str) -> str:
    if canonical_number(label) is not None:
        return label
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split()) or label


def _spellings(written: Sequence[str | None], names: Sequence[str] | None) -> list[str | None]:
    stripped = [None if text is None or not text.strip() else text.strip() for text in written]
    values = _numeric([text for text in stripped if text is not None])
    if values and names:
        return [None if text is None else _class_number(values[text], len(names)) for text in stripped]
    if all(text is None or text.lower() in TRUTH for text in stripped):
        return [None if text is None else text.lower() for text in stripped]
    if not values or any(PADDED.fullmatch(text) for text in values):
        return stripped
    return [None if text is None else _spelled_number(text, values[text]) for text in stripped]


def _spelled_number(text: str, value: float) -> str:
    """Whole numbers with every digit, also those that a float cannot hold."""
    return str(round(Decimal(text))) if value.is_integer() else str(value)


def _is_numeric_type(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return any(is_kind(kind) for is_kind in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))


def _not_labels(kind: pa.DataType) -> LabelError:
    return LabelError(
        f"The label column holds values of the type {kind}, not labels.",
        fix="Name another one with data.label_column.",
    )


def _from_multi_hot(labels: pa.Array, lengths: NDArray[np.int64]) -> pa.Array:
    """The labels of lists of one length with nothing but 0 and 1 in them: the place of each 1, null for a 0.

    Others as they are. As names of classes such lists would repeat themselves, or put every row into both classes.

    Args:
        lengths: of the lists, ``[rows]``.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    coded = labels.dictionary_encode()
    seen = coded.dictionary.to_pylist()
    width = int(lengths[0]) if len(lengths) else 0
    if width < 2 or (lengths != width).any() or not seen or not any(binary.issuperset(seen) for binary in BINARY):
        return labels
    hot = np.asarray([value in ("1", "true") for value in seen])[to_numpy(coded.indices)] & valid_rows(labels)
    places = from_numpy(np.tile(np.arange(width), len(lengths)))
    classes = strings([str(place) for place in range(width)]).cast(pa.string())
    return classes.take(pc.if_else(from_numpy(hot), places, pa.nulls(len(places), places.type)))


def _class_number(value: float, classes: int) -> str | None:
    """The number of a declared class; ``None`` for others, such as the -1 of an unlabelled row."""
    return str(int(value)) if value.is_integer() and 0 <= value < classes else None


def _numeric(texts: Sequence[str]) -> dict[str, float]:
    """Text -> finite number, when every text is one; else nothing."""
    values: dict[str, float] = {}
    for text in texts:
        value = canonical_number(text)
        if value is None:
            return {}
        values[text] = value
    return values


def _regression(num_labels: int | None) -> LabelSet:
    if num_labels not in (None, 1):
        raise LabelError(
            f"The labels are numbers with fractions (regression), but model.num_labels is {num_labels}.",
            fix="Set model.num_labels to 1, or name a column of classes with data.label_column.",
        )
    return LabelSet(("score",), ("score",), "regression")


def _in_order(seen: Sequence[str], values: Mapping[str, float], num_labels: int | None) -> list[str]:
    """Class names in their order; numbers 0..n-1 are filled up to ``num_labels`` when a class has no row."""
    if not values:
        return sorted(seen)
    numbers = [str(number) for number in range(num_labels or 0)]
    if set(seen) <= set(numbers):
        return numbers
    return sorted(seen, key=lambda name: (values[name], name))


def _check_class_count(names: Sequence[str], num_labels: int | None) -> None:
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    if num_labels is not None and len(names) != num_labels:
        raise LabelError(
            f"model.num_labels is {num_labels}, but the training rows have {len(names)} classes: {shown}.",
            fix=f"Set model.num_labels to {len(names)} or remove it; or name another column with data.label_column.",
        )
    if len(names) > MAX_CLASSES:
        raise LabelError(
            f"The label column has {len(names):,} different values: {shown}.",
            fix="Name the column of classes with data.label_column, or set model.num_labels to 1 for regression.",
        )
    if len(names) < 2 and num_labels is None:
        raise LabelError(
            f"Every training row has the same label: {shown or 'none'}.",
            fix="Add rows of another class, or name another column with data.label_column.",
        )


def _numbers_of(names: Sequence[str], label_set: LabelSet, split: str) -> NDArray[np.int64]:
    numbers = label_set.numbers
    unknown = sorted(name for name in names if name not in numbers)
    if unknown:
        raise LabelError(
            f"The {split} split has labels that the train split has not: {', '.join(unknown[:10])}.",
            fix="Add training rows of these classes, or take those rows out.",
        )
    return np.asarray([numbers[name] for name in names], dtype=np.int64)


def _encode_numbers(labels: pa.Array, split: str) -> NDArray[np.float32]:
    import pyarrow as pa

    try:
        encoded: NDArray[np.float32] = to_numpy(labels.cast(pa.float32()))
        return encoded
    except pa.ArrowInvalid as error:
        raise LabelError(
            f"A label of the {split} split is not a number: {error}.", fix="Correct it or take the row out."
        ) from None


def _encode_lists(labels: pa.Array, label_set: LabelSet, split: str) -> NDArray[np.float32]:
    encoded = np.zeros((len(labels), len(label_set.names)), dtype=np.float32)
    flat = labels.flatten().dictionary_encode()
    numbers = _numbers_of(flat.dictionary.to_pylist(), label_set, split)
    columns = numbers[to_numpy(flat.indices)]
    lengths = to_numpy(labels.value_lengths())
    encoded[np.repeat(np.arange(len(labels)), lengths), columns] = 1.0
    return encoded
