"""Rules for damage that a table carries over from its file: rows that were never meant to be rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from loramill.arrays import string_scalar, to_numpy
from loramill.data.checks.rule import Hits
from loramill.data.labels import count_labels
from loramill.data.rows import SplitRows

MAX_LABELS = 50
SWALLOWED_LINES = 2


def check_file_damage(rows: SplitRows) -> Iterator[Hits]:
    """Every rule of this module on one split."""
    yield from repeated_headers(rows)
    yield from swallowed_rows(rows)


def repeated_headers(rows: SplitRows) -> Iterator[Hits]:
    """The header again among the rows, as when files were joined one after another."""
    import pyarrow.compute as pc

    if rows.has_several_labels:
        return
    is_text = to_numpy(pc.equal(rows.texts, string_scalar(rows.columns.text)))
    found = np.flatnonzero(is_text & to_numpy(pc.equal(rows.labels, string_scalar(rows.columns.label))))
    if len(found):
        shown = f"{rows.columns.text}, {rows.columns.label}"
        fix = "Take the row out: it is a header."
        yield Hits(
            "header_in_rows", "error", rows.name, rows.columns.text, fix, found, lambda _: shown, cleaning="drop"
        )


def swallowed_rows(rows: SplitRows) -> Iterator[Hits]:
    """A text that holds whole rows of its file: an opening quote that was closed some rows later.

    Closed at the start of the next row, it leaves that row's last quote as the text's only one.
    """
    import pyarrow.compute as pc

    labels = list(count_labels(rows.labels))
    if rows.has_several_labels or not labels or len(labels) > MAX_LABELS:
        return
    written = "|".join(re.escape(label) for label in labels)
    end = rf"[,;\t|]\s*\"?({written})\"?\s*\r?\n"
    several = to_numpy(pc.count_substring_regex(rows.texts, end)) >= SWALLOWED_LINES
    single = to_numpy(pc.match_substring_regex(rows.texts, rf'(?s)^[^"]*{end}[^"]*"$'))
    found = np.flatnonzero(several | single)
    if len(found):
        fix = "Close or double the quote at the start of this text."
        yield Hits(
            "rows_swallowed", "error", rows.name, rows.columns.text, fix, found,
            lambda hit: str(rows.texts[int(found[hit])].as_py()), cleaning="drop",
        )  # fmt: skip
