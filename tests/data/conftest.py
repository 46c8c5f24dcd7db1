"""Rows and sources for the tests of data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data_rows import Load, MakeRows
from loramill.config.schema import DataConfig
from loramill.data.columns import Columns
from loramill.data.labels import canonical_labels
from loramill.data.rows import SplitRows
from loramill.data.sources import SourceData, load_source


@pytest.fixture
def make_rows() -> MakeRows:
    """Rows in canonical form, from lists."""
    import pyarrow as pa

    def make(
        texts: Sequence[str | None],
        labels: Sequence[object] | None = None,
        pairs: Sequence[str | None] | None = None,
        name: str = "train",
    ) -> SplitRows:
        given = labels if labels is not None else [number % 2 for number in range(len(texts))]
        return SplitRows(
            name=name,
            texts=pa.array(texts, pa.large_string()),
            pairs=None if pairs is None else pa.array(pairs, pa.large_string()),
            labels=canonical_labels(pa.chunked_array([pa.array(given)])),
            row_ids=np.arange(len(texts), dtype=np.int64),
            columns=Columns("text", None if pairs is None else "text_pair", "label"),
        )

    return make


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads a source as a run does."""

    def read(source: Path | str, **options: object) -> SourceData:
        return load_source(DataConfig(dataset_name=str(source), **options), tmp_path / "data")  # type: ignore[arg-type]

    return read
