"""Data reports and versions as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from loramill.data.analyzer import Lengths, SplitAnalysis
from loramill.data.diff import VersionDiff
from loramill.data.findings import SEVERITIES, Finding, ValidationReport
from loramill.data.versions import DataVersion

STYLES = {"error": "red", "warning": "yellow", "info": "dim"}
BAR_WIDTH = 30
SHORT_ID = 12


def console() -> Console:
    """Prints texts of the data as they are: square brackets and colons are not rich's."""
    return Console(markup=False, emoji=False, highlight=False)


def report_tables(report: ValidationReport, for_each: int) -> RenderableType:
    """Totals, then every rule with its number of rows, its fix and the first rows at fault."""
    balance = "balanced" if report.is_balanced else "not balanced"
    labels = ", ".join(f"{label}: {count:,}" for label, count in list(report.label_counts.items())[:20])
    head = (
        f"{report.total_samples:,} rows. Labels: {labels or 'numbers'}. Ratio {report.imbalance_ratio:g} ({balance})."
    )
    if not report.finding_counts:
        return Group(Text(head), Text("No findings."))
    rules = [Text("\n").join(_rule(report, code, for_each)) for code in _gravest_first(report)]
    return Group(Text(head), *(Text.assemble("\n", rule) for rule in rules))


def analysis_tables(analysis: Mapping[str, SplitAnalysis]) -> RenderableType:
    """For each split: labels as bars, lengths, vocabulary, languages, repetition."""
    parts: list[RenderableType] = []
    for split in analysis.values():
        parts += [_facts(split), _lengths(split)]
        if split.label_counts:
            parts.append(_bars(split.label_counts))
        words = ", ".join(f"{word} {count:,}" for word, count in split.vocabulary.most_frequent[:15])
        parts.append(Text(f"Most frequent words: {words}\n"))
    return Group(*parts)


def versions_table(versions: Sequence[DataVersion], tags: Mapping[str, str]) -> RenderableType:
    """One line a version, oldest first."""
    if not versions:
        return Text("No data versions yet. `loramill data version SOURCE` stores one; every run stores its own.")
    table = _table("id", "created", "rows", "source", "description", "tags", numbers=("rows",))
    for version in versions:
        names = ", ".join(tag for tag, version_id in tags.items() if version_id == version.id)
        created = version.created_at[:16].replace("T", " ")
        table.add_row(version.id[:SHORT_ID], created, f"{version.rows:,}", version.source, version.description, names)
    return table


def diff_tables(diff: VersionDiff) -> RenderableType:
    """Counts of each kind of change, then examples."""
    counts = (
        f"{diff.unchanged:,} unchanged, {diff.added:,} added, {diff.removed:,} removed, {diff.relabelled:,} relabelled"
    )
    table = _table("change", "label", "text")
    for kind, rows in (("added", diff.added_examples), ("removed", diff.removed_examples)):
        for row in rows:
            table.add_row(kind, str(row["label"]), _one_line(row["text"]))
    for row in diff.relabelled_examples:
        table.add_row("relabelled", f"{row['before']} -> {row['after']}", _one_line(row["text"]))
    return Group(Text(counts), table) if table.row_count else Text(counts)


def uses_table(uses: Sequence[Mapping[str, object]]) -> RenderableType:
    """One line for each experiment and split that saw the rows."""
    if not uses:
        return Text("No experiment saw these rows.")
    table = _table("experiment", "split", "rows", "version", numbers=("rows",))
    for use in uses:
        table.add_row(str(use["experiment_id"]), str(use["split"]), f"{use['rows']:,}", str(use["version"])[:SHORT_ID])
    return table


def _gravest_first(report: ValidationReport) -> list[str]:
    return sorted(report.finding_counts, key=lambda code: (SEVERITIES.index(report.severity_of(code)), code))


def _rule(report: ValidationReport, code: str, for_each: int) -> list[Text]:
    """A line for the rule, and one for each of its first findings."""
    severity, count = report.severity_of(code), report.finding_counts[code]
    found = [finding for finding in report.findings if finding.code == code]
    head = Text.assemble((f"{severity} ", STYLES[severity]), (code, "bold"), f"  {count:,}x  {found[0].fix}")
    return [head, *(Text(f"    {_place(finding)}  {finding.excerpt}") for finding in found[:for_each])]


def _place(finding: Finding) -> str:
    row = "" if finding.row is None else f" row {finding.row}"
    return f"{finding.split}{row}{f', {finding.column}' if finding.column else ''}:"


def _facts(split: SplitAnalysis) -> Text:
    languages = ", ".join(f"{name} {share:.0%}" for name, share in list(split.languages.items())[:4])
    return Text(
        f"Split {split.name}: {split.rows:,} rows, {split.distinct_texts:,} distinct texts, "
        f"{split.near_duplicates:,} near copies. Languages: {languages}.\n"
        f"{split.vocabulary.words:,} words, {split.vocabulary.distinct:,} different."
    )


def _lengths(split: SplitAnalysis) -> Table:
    table = _table(
        "length in",
        "min",
        "median",
        "mean",
        "95%",
        "99%",
        "max",
        numbers=("min", "median", "mean", "95%", "99%", "max"),
    )
    kinds: list[tuple[str, Lengths | None]] = [("characters", split.characters), ("words", split.words)]
    for name, lengths in [*kinds, ("tokens", split.tokens)]:
        if lengths is not None:
            values = (lengths.minimum, lengths.median, lengths.mean, lengths.p95, lengths.p99, lengths.maximum)
            table.add_row(name, *(f"{value:,g}" for value in values))
    return table


def _bars(counts: Mapping[str, int]) -> Table:
    table = _table("label", "rows", "", numbers=("rows",))
    largest = max(counts.values())
    for label, count in list(counts.items())[:20]:
        table.add_row(label, f"{count:,}", "█" * max(1, round(BAR_WIDTH * count / largest)))
    return table


def _table(*headings: str, numbers: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
    return table


def _one_line(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 100 else f"{line[:99]}…"
