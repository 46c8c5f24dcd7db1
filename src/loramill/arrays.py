"""Arrow to numpy and back, by their memory.

Arrow's own conversions import pandas, where it is installed, the first time they are used. That costs a quarter of a
second at the start of every training run, for a package that loramill does not need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


ARROW_FLOATS = {"float": "float32", "double": "float64"}
"""Arrow's names of types that numpy has under other names."""


def to_numpy(array: pa.Array) -> NDArray[Any]:
    """Numbers or truth values ``[rows]``; a null is 0 or false."""
    import pyarrow as pa

    data = array.buffers()[1]
    if pa.types.is_boolean(array.type):
        values = _unpacked(data, array.offset, len(array))
    else:
        name = str(array.type)
        values = np.frombuffer(data or b"", dtype=ARROW_FLOATS.get(name, name))[
            array.offset : array.offset + len(array)
        ]
    return np.where(valid_rows(array), values, np.zeros(1, values.dtype)) if array.null_count else values


def valid_rows(array: pa.Array) -> NDArray[np.bool_]:
    """Whether each value is there ``[rows]``."""
    validity = array.buffers()[0]
    if validity is None:
        return np.full(len(array), array.null_count == 0, dtype=bool)
    return _unpacked(validity, array.offset, len(array))


def from_numpy(values: NDArray[Any]) -> pa.Array:
    """Numbers or truth values as an Arrow array without nulls, sharing the memory of the numbers.

    Whole numbers are int64; of ``[rows, n]`` every row is a list.
    """
    import pyarrow as pa

    if values.ndim == 2:
        rows, width = values.shape
        return pa.ListArray.from_arrays(
            from_numpy(np.arange(rows + 1) * width).cast("int32"), from_numpy(values.ravel())
        )
    if values.dtype == np.bool_:
        packed = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(packed)])
    kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.int64)
    numbers = np.ascontiguousarray(values, dtype=kind)
    names = {numpy: arrow for arrow, numpy in ARROW_FLOATS.items()}
    arrow_type = pa.type_for_alias(names.get(kind.name, kind.name))
    return pa.Array.from_buffers(arrow_type, len(numbers), [None, pa.py_buffer(numbers)])


def strings(values: Sequence[str | None]) -> pa.LargeStringArray:
    """Texts as an Arrow array; ``None`` is null."""
    import pyarrow as pa

    encoded = [b"" if value is None else value.encode() for value in values]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    missing = [value is None for value in values]
    validity = pa.py_buffer(np.packbits(~np.asarray(missing), bitorder="little")) if any(missing) else None
    return pa.LargeStringArray.from_buffers(
        len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)), validity
    )


def string_scalar(value: str) -> pa.LargeStringScalar:
    """One text, to compare with or to fill in."""
    return strings([value])[0]


def or_empty(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Texts with nulls as empty texts."""
    import pyarrow.compute as pc

    return pc.fill_null(texts, string_scalar("")) if texts.null_count else texts


def _unpacked(bits: pa.Buffer | None, offset: int, length: int) -> NDArray[np.bool_]:
    packed = np.frombuffer(bits or b"", dtype=np.uint8)
    unpacked: NDArray[np.bool_] = np.unpackbits(packed, count=offset + length, bitorder="little")[offset:].astype(bool)
    return unpacked
