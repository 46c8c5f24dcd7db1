"""csv and tsv: finds separator, quoting and header by itself, and names every row that does not fit."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loramill.data.findings import Finding, Severity, excerpt
from loramill.data.tables import FileRows, clean_names
from loramill.data.text_input import ReadLimits, TextFacts, open_for_arrow, scan_text
from loramill.errors import DataTooLargeError, EmptyDatasetError, UnreadableDataError

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATORS = (",", "\t", ";", "|")
SNIFFED_LINES = 200
HEADER_ROWS = 20
ROW_BLOCK = 1 << 24
MAX_BAD_SHARE = 0.5


@dataclass(frozen=True)
class Dialect:
    """How a file writes its rows."""

    separator: str
    quoted: bool
    escaped: bool = False
    """Quotes within values are written as ``\\"``, as Spark and MySQL do, not doubled."""

    def describe(self) -> str:
        name = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}[self.separator]
        escapes = " and backslashes before them" if self.escaped else ""
        return f"columns separated by {name}, {'with' if self.quoted else 'without'} quotes{escapes}"

    def rows(self, lines: Iterable[str], *, strict: bool = False) -> Any:
        """Python's reader of such lines; ``strict`` has it raise ``csv.Error`` for broken quotes."""
        quoting: Any = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        escape = "\\" if self.escaped else None
        return csv.reader(lines, delimiter=self.separator, quoting=quoting, escapechar=escape, strict=strict)


def read_delimited(path: Path, limits: ReadLimits) -> FileRows:
    """Every row of a csv or tsv file, each value as text.

    Raises:
        EmptyDatasetError: no rows.
        DataTooLargeError: beyond the limits.
        UnreadableDataError: no table can be made of it.
    """
    facts = scan_text(path, limits)
    if not facts.head.strip():
        raise EmptyDatasetError(f"{path.name} is empty.", fix="Give a file with a header and rows.")
    dialect = find_dialect(facts.head, prefer="\t" if ".tsv" in path.name.lower() else None)
    header = _header(path, facts, dialect, limits)
    table, bad = _parse(path, facts, dialect, header, limits)
    unclosed: list[_BadRow] = []
    if dialect.quoted and any(row.has_unclosed_quote for row in bad):
        plain = Dialect(dialect.separator, quoted=False)
        again, bad_again = _parse(path, facts, plain, header, limits)
        if len(bad_again) <= len(bad) and again.num_rows > table.num_rows:
            unclosed = [row for row in bad if row.has_unclosed_quote]
            dialect, table, bad = plain, again, bad_again
    _refuse_mostly_bad(path, table, bad)
    names, name_findings = clean_names(_as_written(header, facts))
    findings = [*name_findings, *_file_findings(facts), *(_unclosed_quote(row, header, "warning") for row in unclosed)]
    findings += [_bad_row(row, header) for row in bad]
    row_ids = _row_ids(table.num_rows, [header.source_row(row) for row in bad])
    note = f"{path.name}: {facts.encoding}, {dialect.describe()}{'' if header.in_file else ', no header'}."
    return FileRows(table.rename_columns(names), row_ids, tuple(findings), (note,))


def find_dialect(head: str, prefer: str | None = None) -> Dialect:
    """The separator and quoting under which the first lines have the same number of columns most often.

    Args:
        head: the first lines of the file.
        prefer: the separator that the file's name promises; another one must fit clearly better.
    """
    ways = [(True, False), (False, False)]
    if '\\"' in head:
        ways.insert(1, (True, True))
    best, best_score = Dialect(prefer or ",", quoted=True), (-1.0, -1, -1)
    for separator in SEPARATORS:
        for place, (quoted, escaped) in enumerate(ways):
            dialect = Dialect(separator, quoted, escaped)
            rank = (_consistency(head, dialect), int(separator == prefer), -place)
            if rank > best_score:
                best, best_score = dialect, rank
    return best


@dataclass(frozen=True)
class _Header:
    """Column names, and how many lines stand before the first row of data as Arrow counts them."""

    names: tuple[str, ...]
    in_file: bool
    blank_lines: int

    def source_row(self, row: _BadRow) -> int:
        return row.number - 1 - self.blank_lines - int(self.in_file)


@dataclass(frozen=True)
class _BadRow:
    """A row with the wrong number of columns; ``number`` is Arrow's, from 1, the header included."""

    number: int
    columns: int
    text: str

    @property
    def has_unclosed_quote(self) -> bool:
        return "\n" in self.text or self.text.count('"') % 2 == 1


def _consistency(head: str, dialect: Dialect) -> float:
    """Share of rows that have the most frequent number of columns; 0 for a single column.

    Where a quote is broken, each line counts by itself: the others still show how they are written.
    """
    counts: dict[int, int] = {}
    lines = list(io.StringIO(head, newline=""))
    rows, whole_lines = dialect.rows(lines, strict=dialect.quoted), 0
    try:
        for number, row in enumerate(rows):
            if number == SNIFFED_LINES:
                break
            whole_lines = rows.line_num
            if row:
                counts[len(row)] = counts.get(len(row), 0) + 1
    except csv.Error:
        is_cut_value = rows.line_num == len(lines) <= 2 * whole_lines  # the head ends within a value of several lines
        if not is_cut_value and sum(counts.values()) < SNIFFED_LINES // 2:
            counts = _columns_of_lines(lines[:SNIFFED_LINES], dialect)
    most = max(counts, key=lambda columns: counts[columns], default=0)
    return counts[most] / sum(counts.values()) if most > 1 else 0.0


def _columns_of_lines(lines: Sequence[str], dialect: Dialect) -> dict[int, int]:
    """Number of columns -> lines that have it when read alone; 0 for those that are no rows."""
    counts: dict[int, int] = {}
    for line in filter(str.strip, lines):
        try:
            columns = len(next(dialect.rows([line], strict=True)))
        except csv.Error:
            columns = 0
        counts[columns] = counts.get(columns, 0) + 1
    return counts


def _header(path: Path, facts: TextFacts, dialect: Dialect, limits: ReadLimits) -> _Header:
    first_line = re.split(r"[\r\n]", facts.head.lstrip("\r\n"), maxsplit=1)[0]
    if first_line.count(dialect.separator) >= limits.max_columns:
        raise DataTooLargeError(
            f"{path.name} has more than {limits.max_columns} columns.", fix="Keep the columns of text and label only."
        )
    rows = dialect.rows(io.StringIO(facts.head, newline=""))
    head: list[list[str]] = []
    try:
        head.extend(row for _, row in zip(range(HEADER_ROWS), filter(None, rows), strict=False))
    except csv.Error as error:  # a broken row further down is for the parser to report
        if not head:
            raise UnreadableDataError(
                f"The first line of {path.name} is no header: {error}.", fix="Look at its quotes and separators."
            ) from None
    blank_lines = _leading_blank_lines(facts.head)
    if _is_header(head):
        return _Header(tuple(head[0]), True, blank_lines)
    return _Header(tuple(f"column_{number}" for number in range(1, len(head[0]) + 1)), False, blank_lines)


def _is_header(head: Sequence[Sequence[str]]) -> bool:
    """Names are short, distinct, no numbers, and do not come again as values in their column.

    The whole line may come again, as in files that were joined: the rule ``header_in_rows`` reports that.
    """
    first = head[0]
    rest = [row for row in head[1:] if len(row) == len(first) and row != first]
    if any(_is_number(value) for value in first) or any(len(value) > 80 for value in first):
        return False
    return not any(
        value.strip() and len({row[column] for row in rest}) < len(rest) and value in {row[column] for row in rest}
        for column, value in enumerate(first)
    )


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _parse(
    path: Path, facts: TextFacts, dialect: Dialect, header: _Header, limits: ReadLimits
) -> tuple[pa.Table, list[_BadRow]]:
    """Parse in one thread, since only then a bad row's number is known."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    bad: list[_BadRow] = []

    def skip(row: Any) -> str:
        bad.append(_BadRow(row.number, row.actual_columns, row.text))
        return "skip"

    columns = [f"c{number}" for number in range(len(header.names))]
    try:
        with (
            open_for_arrow(path, facts, limits) as stream,
            arrow_csv.open_csv(
                stream,
                read_options=arrow_csv.ReadOptions(
                    block_size=ROW_BLOCK,
                    use_threads=False,
                    column_names=columns,
                    skip_rows=header.blank_lines,
                    skip_rows_after_names=int(header.in_file),
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=dialect.separator,
                    quote_char='"' if dialect.quoted else False,
                    escape_char="\\" if dialect.escaped else False,
                    newlines_in_values=dialect.quoted,
                    invalid_row_handler=skip,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.large_string()), strings_can_be_null=False
                ),
            ) as reader,
        ):
            return reader.read_all(), bad
    except pa.ArrowInvalid as error:
        raise _no_table(path, facts, str(error)) from None


def _no_table(path: Path, facts: TextFacts, reason: str) -> EmptyDatasetError | UnreadableDataError:
    if len(facts.head.splitlines()) == 1:  # a header without a line end, which Arrow takes for the half of one
        return EmptyDatasetError(f"{path.name} has no rows.", fix="Give a file with a header and at least two rows.")
    if "straddl" in reason:
        reason = f"a row has more than {ROW_BLOCK >> 20} MiB"
    return UnreadableDataError(
        f"{path.name} cannot be read as a table: {reason}.", fix="Look for a quote that is opened and never closed."
    )


def _leading_blank_lines(head: str) -> int:
    """Arrow would count the first of them as the header."""
    start = re.match(r"(\r\n|\r|\n)*", head)
    return len(re.findall(r"\r\n|\r|\n", start[0])) if start else 0


def _row_ids(rows: int, left_out: Sequence[int]) -> NDArray[np.int64]:
    """0-based row of the source for every row that was kept."""
    return np.setdiff1d(np.arange(rows + len(left_out), dtype=np.int64), left_out)[:rows]


def _bad_row(row: _BadRow, header: _Header) -> Finding:
    if row.has_unclosed_quote:
        return _unclosed_quote(row, header, "error")
    fix = f"Give it {len(header.names)} columns (it has {row.columns}); quote values that hold the separator."
    at = header.source_row(row)
    return Finding("row_wrong_columns", "error", at, None, excerpt(row.text), fix)


def _unclosed_quote(row: _BadRow, header: _Header, severity: Severity) -> Finding:
    """An error where the quote swallowed the rows behind it; a warning where reading without quotes saved them."""
    fix = "Close or double the quote at the start of this row."
    at = header.source_row(row)
    return Finding("quote_unclosed", severity, at, None, excerpt(row.text), fix)


def _as_written(header: _Header, facts: TextFacts) -> list[str]:
    """The names of the columns, with the byte order mark that decoding took away."""
    mark = "\ufeff" if header.in_file and facts.encoding == "utf-8-sig" else ""
    return [mark + header.names[0], *header.names[1:]]


def _file_findings(facts: TextFacts) -> list[Finding]:
    findings = []
    if not facts.encoding.startswith("utf-8"):
        fix = "Save the file as UTF-8, so that no reader has to guess."
        findings.append(Finding("encoding_not_utf8", "info", None, None, facts.encoding, fix))
    if facts.is_damaged:
        fix = "Save the file again from its origin: the bytes that were lost cannot be brought back."
        findings.append(Finding("encoding_invalid", "warning", None, None, "bytes that are not UTF-8", fix))
    return findings


def _refuse_mostly_bad(path: Path, table: pa.Table, bad: Sequence[_BadRow]) -> None:
    if len(bad) > MAX_BAD_SHARE * (table.num_rows + len(bad)):
        raise UnreadableDataError(
            f"{len(bad)} of {table.num_rows + len(bad)} rows of {path.name} do not fit its header; the first is "
            f"{excerpt(bad[0].text)!r}.",
            fix="Write the file with one separator, and quotes around values that hold it.",
        )
