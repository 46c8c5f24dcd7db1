"""Which column is the text, which its pair, which the label: found by name first, by content second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loramill.errors import MissingColumnError

if TYPE_CHECKING:
    import pyarrow as pa

PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text", "text_pair"),
    ("query", "passage"),
)
TEXTS = ("text", "sentence", "content", "review", "document", "comment", "tweet", "message", "body", "review_text")
LABELS = ("label", "labels", "target", "class", "category", "sentiment", "rating", "stars", "score", "y", "intent")
LOOKED_AT = 1000
"""Rows whose content decides, when the names do not."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns that training reads."""

    text: str
    text_pair: str | None
    label: str

    def describe(self) -> str:
        pair = f" paired with '{self.text_pair}'" if self.text_pair else ""
        return f"text from column '{self.text}'{pair}, label from column '{self.label}'"


def find_columns(table: pa.Table, *, text: str | None, text_pair: str | None, label: str | None) -> Columns:
    """Take the named columns, and find the others.

    Raises:
        MissingColumnError: a named column is not there, or none could be found; names those that are there.
    """
    for name, key in ((text, "text_column"), (text_pair, "text_pair_column"), (label, "label_column")):
        if name is not None and name not in table.column_names:
            raise _missing(f"There is no column '{name}'", table, key)
    label = label or _find_label(table, taken=(text, text_pair))
    if label is None:
        raise _missing("No column looks like a label", table, "label_column")
    if text is None and text_pair is None:
        text, text_pair = _find_pair(table, label)
    text = text or _find_text(table, taken=(label, text_pair))
    if text is None:
        raise _missing("No column looks like a text", table, "text_column")
    return Columns(text, text_pair, label)


def _find_pair(table: pa.Table, label: str) -> tuple[str | None, str | None]:
    names = _by_lower_name(table)
    for first, second in PAIRS:
        if first in names and second in names and label not in (names[first], names[second]):
            return names[first], names[second]
    return None, None


def _find_label(table: pa.Table, taken: Sequence[str | None]) -> str | None:
    names = _by_lower_name(table)
    for name in LABELS:
        if name in names and names[name] not in taken:
            return names[name]
    candidates = [name for name in table.column_names if name not in taken and _looks_like_label(table[name])]
    return candidates[-1] if len(candidates) == 1 else None


def _find_text(table: pa.Table, taken: Sequence[str | None]) -> str | None:
    names = _by_lower_name(table)
    for name in TEXTS:
        if name in names and names[name] not in taken:
            return names[name]
    lengths = {name: _mean_length(table[name]) for name in table.column_names if name not in taken}
    longest = max(lengths, key=lengths.__getitem__, default=None)
    return longest if longest is not None and lengths[longest] > 0 else None


def _looks_like_label(column: pa.ChunkedArray) -> bool:
    """Few distinct, short values, each of them several times; never a text or an id."""
    import pyarrow as pa

    if pa.types.is_nested(column.type) or pa.types.is_floating(column.type):
        return False
    head = column.slice(0, LOOKED_AT)
    distinct = head.unique()
    if _mean_length(column) > 30:
        return False
    return 2 <= len(distinct) <= max(2, len(head) // 5)


def _mean_length(column: pa.ChunkedArray) -> float:
    """Mean characters of the first values; 0 for what is not text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return 0.0
    return float(pc.mean(pc.utf8_length(column.slice(0, LOOKED_AT))).as_py() or 0.0)


def _by_lower_name(table: pa.Table) -> dict[str, str]:
    return {name.strip().lower(): name for name in reversed(table.column_names)}


def _missing(problem: str, table: pa.Table, key: str) -> MissingColumnError:
    shown = ", ".join(table.column_names[:20]) + (", ..." if table.num_columns > 20 else "")
    return MissingColumnError(f"{problem}. The data has these columns: {shown}.", fix=f"Name one with data.{key}.")
