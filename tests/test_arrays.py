"""Conversions by memory give what Arrow's own conversions give, and do not import pandas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from loramill.arrays import from_numpy, or_empty, string_scalar, strings, to_numpy, valid_rows

ARRAYS = [
    pa.array([1, 2, 3], pa.int32()),
    pa.array([1, None, 3], pa.int64()),
    pa.array([0.5, None, 2.0], pa.float32()),
    pa.array([0.5, 1.5], pa.float64()),
    pa.array([True, False, None, True] * 5),
    pa.array([], pa.int64()),
    pa.array([None, None], pa.int64()),
]


@pytest.mark.parametrize("array", ARRAYS, ids=str)
@pytest.mark.parametrize("start", [0, 1, 3])
def test_numbers_and_truth_values_come_over_with_nulls_as_zero(array: pa.Array, start: int) -> None:
    part = array.slice(start)
    zero = False if pa.types.is_boolean(array.type) else 0
    assert to_numpy(part).tolist() == [zero if value is None else value for value in part.to_pylist()]
    assert valid_rows(part).tolist() == [value is not None for value in part.to_pylist()]


def test_numpy_goes_back() -> None:
    for values in (np.asarray([3, 1, 2]), np.asarray([True, False, True] * 7), np.asarray([], dtype=np.int64)):
        assert from_numpy(values).to_pylist() == values.tolist()
    assert from_numpy(np.arange(10)[::2]).to_pylist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("values", [[], [None], ["a", None, "", "好\0看"], ["x"] * 20])
def test_texts_go_over(values: list[str | None]) -> None:
    array = strings(values)
    array.validate(full=True)
    assert array.to_pylist() == values
    assert array.type == pa.large_string()
    assert or_empty(array).to_pylist() == [value or "" for value in values]


def test_half_a_character_is_refused_as_arrow_does() -> None:
    with pytest.raises(UnicodeEncodeError):
        strings(["\ud800"])


def test_a_scalar_compares() -> None:
    assert string_scalar("好").as_py() == "好"


def test_preparing_a_run_does_not_import_pandas(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom loramill.config.schema import DataConfig\n"
        "from loramill.data.prepare import prepare_data\n"
        "config = DataConfig(dataset_name='sample:movie_reviews', train_samples=200, on_findings=sys.argv[2])\n"
        "prepare_data(config, num_labels=None, seed=42, data_folder=Path(sys.argv[1]))\n"
        "print('pandas' in sys.modules, 'polars' in sys.modules, 'datasets' in sys.modules)\n"
    )
    for choice in ("warn", "clean"):
        command = [sys.executable, "-c", program, str(tmp_path), choice]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert result.stdout.split() == ["False", "False", "False"]
