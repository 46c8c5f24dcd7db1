"""Saved predictions of the evaluation split, read back for reports and comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loramill.arrays import to_numpy
from loramill.errors import CorruptFileError
from loramill.experiments.folder import ExperimentFolder

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Predictions:
    """What a final model said of each evaluated row.

    Attributes:
        row: ``[rows]`` 0-based rows of the source, as a person finds them there.
        position: ``[rows]`` 0-based rows of the evaluated data version, which all runs on it share; ``None`` when the
            run kept a part of them and did not say which.
        label, prediction: ``[rows]`` class indices (regression: values; multi-label: ``[rows, labels]`` of 0 and 1).
        probabilities: ``[rows, classes]``, or ``None`` when they were not read.
        loss: ``[rows]``.
        text: the evaluated texts where the run saved them, else ``None``.
    """

    row: Array
    position: Array | None
    label: Array
    prediction: Array
    probabilities: Array | None
    loss: Array
    text: list[str] | None

    @property
    def is_classification(self) -> bool:
        return bool(np.issubdtype(self.prediction.dtype, np.integer))

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """``[rows]`` whether the prediction is the label, wholly."""
        equal = np.equal(self.label, self.prediction)
        return np.asarray(equal if equal.ndim == 1 else equal.all(axis=1))


def read_predictions(folder: ExperimentFolder, *, everything: bool = True) -> Predictions | None:
    """The predictions of a run; ``None`` when it saved none.

    Args:
        everything: read probabilities and texts too, which comparisons do without.

    Raises:
        CorruptFileError: the file is not what ``training`` writes.
    """
    if not folder.predictions_file.is_file():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(folder.predictions_file) as file:
            details = ("probabilities", "text") if everything else ()
            wanted = ["row", "position", "label", "prediction", "loss", *details]
            table = file.read(columns=[name for name in wanted if name in file.schema_arrow.names])
        return Predictions(
            row=_array(table["row"]),
            position=_positions(table, folder),
            label=_array(table["label"]),
            prediction=_array(table["prediction"]),
            probabilities=_array(table["probabilities"]) if "probabilities" in table.column_names else None,
            loss=_array(table["loss"]),
            text=table["text"].to_pylist() if "text" in table.column_names else None,
        )
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise CorruptFileError(f"{folder.predictions_file} cannot be read: {error}") from error


def _positions(table: Any, folder: ExperimentFolder) -> Array | None:
    """Where each row is in the version; a file without them, of an earlier loramill, is in order when it is whole."""
    if "position" in table.column_names:
        return _array(table["position"])
    return np.arange(len(table)) if len(table) == folder.read_data().get("eval_rows") else None


def _array(column: Any) -> Array:
    """A column as an array; lists of equal length become rows of a matrix."""
    import pyarrow as pa

    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # an empty column stays chunked
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    if not pa.types.is_list(whole.type) and not pa.types.is_large_list(whole.type):
        return to_numpy(whole)
    flat = to_numpy(whole.flatten())
    return flat.reshape(len(whole), -1) if len(whole) else flat.reshape(0, 0)
