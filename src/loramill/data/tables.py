"""A file's rows as one table, whatever its format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loramill.data.findings import Finding

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class FileRows:
    """Rows that could be read, and what was wrong with the others.

    Attributes:
        table: one column a field, under clean and distinct names.
        row_ids: 0-based row in the file for each row of the table ``[rows]``.
        notes: choices made while reading, in sentences.
        is_stored: rows of a version, whose labels have their canonical spelling already. Of some rows of a data set
            alone it could not be found again: ``"1.0"`` beside ``"two"`` is a name, and alone a number.
    """

    table: pa.Table
    row_ids: NDArray[np.int64]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    is_stored: bool = False


def clean_names(written: Sequence[str]) -> tuple[list[str], list[Finding]]:
    """Column names without byte order marks, carriage returns and outer blanks; repeated names get a number."""
    names: list[str] = []
    findings: list[Finding] = []
    seen: Counter[str] = Counter()
    for number, raw in enumerate(written, start=1):
        name = raw.replace("\ufeff", "").replace("\0", "").strip() or f"column_{number}"
        if name != raw and raw.strip():
            fix = f"Write it as '{name}' (this is how it was read)."
            findings.append(Finding("header_damaged", "info", None, name, repr(raw), fix))
        seen[name] += 1
        if seen[name] > 1:
            fix = f"Give each column its own name (this one was read as '{name}_{seen[name]}')."
            findings.append(Finding("header_repeated_name", "warning", None, name, name, fix))
            name = f"{name}_{seen[name]}"
        names.append(name)
    return names, findings
