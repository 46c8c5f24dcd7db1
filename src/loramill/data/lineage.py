"""Which stored versions hold rows of a data set: the way from a row back to what was trained on it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loramill.data.rows import Hashes, combine_hashes, hash_strings
from loramill.data.version_manager import DataVersionManager
from loramill.data.versions import DataVersion


def rows_in_versions(manager: DataVersionManager, versions: Iterable[DataVersion], wanted: Hashes) -> dict[str, int]:
    """Version id -> its rows whose text is among the wanted ones; versions without any are left out.

    Args:
        wanted: ``SplitRows.text_hashes``, or those of single texts.

    Raises:
        CorruptFileError: the store lost rows.
    """
    found = {}
    for version in versions:
        count = int(_is_wanted(manager.table(version), wanted).sum())
        if count:
            found[version.id] = count
    return found


def hashes_of(texts: Iterable[str]) -> Hashes:
    """Hashes of single texts, for ``rows_in_versions``."""
    return hash_strings(pa.array(list(texts), pa.large_string()))


def _is_wanted(table: pa.Table, wanted: Hashes) -> NDArray[np.bool_]:
    """Whether each row's text, or its text together with its pair, is among the wanted ones ``[rows]``."""
    hashes = hash_strings(_flat(table["text"]))
    found: NDArray[np.bool_] = np.isin(hashes, wanted)
    if "text_pair" in table.column_names:
        found |= np.isin(combine_hashes(hashes, hash_strings(_flat(table["text_pair"]))), wanted)
    return found


def _flat(column: pa.ChunkedArray) -> pa.LargeStringArray:
    return pa.concat_arrays(column.chunks)
