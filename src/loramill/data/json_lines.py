"""jsonl: one object a line. A line that is none is a finding, not a crash."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loramill.data.findings import Finding, excerpt
from loramill.data.tables import FileRows, clean_names
from loramill.data.text_input import ReadLimits, open_text, scan_text
from loramill.errors import DataTooLargeError, EmptyDatasetError, UnreadableDataError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 50_000
MAX_BAD_SHARE = 0.5
FIX = 'Write one JSON object a line, such as {"text": "...", "label": 1}.'


def read_json_lines(path: Path, limits: ReadLimits) -> FileRows:
    """Every object of a jsonl file; blank lines do not count as rows.

    Raises:
        EmptyDatasetError: no object.
        DataTooLargeError: beyond the limits.
        UnreadableDataError: most lines are no objects.
    """
    facts = scan_text(path, limits)
    rows = _JsonRows(limits)
    with open_text(path, facts, limits) as stream, io.TextIOWrapper(io.BufferedReader(stream), "utf-8") as text:
        for line in text:
            if not line.isspace():
                rows.add(line)
    if rows.read == 0:
        raise EmptyDatasetError(f"{path.name} is empty.", fix=FIX)
    if len(rows.findings) > MAX_BAD_SHARE * rows.read:
        raise UnreadableDataError(
            f"{len(rows.findings)} of {rows.read} lines of {path.name} are no JSON objects; the first is "
            f"{rows.findings[0].excerpt!r}.",
            fix=FIX,
        )
    table = rows.table()
    names, name_findings = clean_names(table.column_names)
    return FileRows(
        table=table.rename_columns(names),
        row_ids=np.asarray(rows.row_ids, dtype=np.int64),
        findings=(*name_findings, *rows.findings),
        notes=(f"{path.name}: {facts.encoding}, one JSON object a line.",),
    )


class _JsonRows:
    """Collects objects and turns them into columns, a few thousand at a time."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._open: list[dict[str, Any]] = []
        self._parts: list[dict[str, pa.Array]] = []
        self.row_ids: list[int] = []
        self.findings: list[Finding] = []
        self.read = 0

    def add(self, line: str) -> None:
        row = self.read
        self.read += 1
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            self.findings.append(Finding("json_invalid", "error", row, None, excerpt(line), f"{FIX} ({reason})"))
            return
        if not isinstance(value, dict):
            self.findings.append(Finding("json_not_object", "error", row, None, excerpt(line), FIX))
            return
        if len(value) > self._limits.max_columns:
            raise DataTooLargeError(
                f"Row {row} has more than {self._limits.max_columns} keys.", fix="Keep the keys of text and label only."
            )
        self._open.append(value)
        self.row_ids.append(row)
        if len(self._open) == ROWS_AT_ONCE:
            self._close_part()

    def table(self) -> pa.Table:
        """Every row; a column has one type, that of text where the rows disagree."""
        import pyarrow as pa

        self._close_part()
        names = list(dict.fromkeys(name for part in self._parts for name in part))
        if len(names) > self._limits.max_columns:
            raise DataTooLargeError(
                f"The rows have more than {self._limits.max_columns} different keys.",
                fix="Keep the keys of text and label only.",
            )
        sizes = [len(next(iter(part.values()))) if part else 0 for part in self._parts]
        columns = [
            _one_type([part.get(name, pa.nulls(size)) for part, size in zip(self._parts, sizes, strict=True)])
            for name in names
        ]
        return pa.Table.from_arrays(columns, names=names)

    def _close_part(self) -> None:
        names = dict.fromkeys(name for row in self._open for name in row)
        if len(names) > self._limits.max_columns:
            raise DataTooLargeError(
                f"The rows have more than {self._limits.max_columns} different keys.",
                fix="Keep the keys of text and label only.",
            )
        if self._open:
            self._parts.append({name: _array([row.get(name) for row in self._open]) for name in names})
        self._open = []


def _array(values: Sequence[object]) -> pa.Array:
    """Values as they are, or all of them as text where their types differ."""
    import pyarrow as pa

    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError):
        array = pa.array([_as_text(value) for value in values], pa.large_string())
    if pa.types.is_struct(array.type) or pa.types.is_map(array.type):
        array = pa.array([_as_text(value) for value in values], pa.large_string())
    return array


def _as_text(value: object) -> str | None:
    """JSON's own spelling of what is no text; a lone surrogate, which no encoding can hold, becomes U+FFFD."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _one_type(parts: Sequence[pa.Array]) -> pa.ChunkedArray:
    import pyarrow as pa

    types = {part.type for part in parts if not pa.types.is_null(part.type)}
    if len(types) <= 1:
        target = next(iter(types), pa.null())
        return pa.chunked_array([part.cast(target) for part in parts], type=target)
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types):
        return pa.chunked_array([part.cast(pa.float64()) for part in parts])
    return pa.chunked_array(
        [pa.array([_as_text(value) for value in part.to_pylist()], pa.large_string()) for part in parts]
    )
