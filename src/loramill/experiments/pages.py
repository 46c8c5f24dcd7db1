"""Comparisons and analyses as tables: for terminals, as CSV, and as self-contained HTML pages with charts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loramill.experiments.charts import Bar, Series, bar_chart, colour_of, format_number, line_chart
from loramill.experiments.compare import Comparison, PairTest
from loramill.experiments.html import as_svg, render_page
from loramill.experiments.metrics import has_a_best, lower_is_better
from loramill.experiments.statistics import GroupStatistics, MetricStatistics

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
CHARTED = ("train_loss", "eval_loss", "eval_accuracy", "eval_f1_macro", "train_learning_rate")
MAX_BARS = 20


@dataclass(frozen=True)
class DataTable:
    """Columns and rows, before anyone has chosen how to show them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def as_csv(self) -> str:
        """CSV whose texts no spreadsheet takes for a formula."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([[_harmless(cell) for cell in row] for row in self.rows])
        return file.getvalue()

    def shown(self) -> list[tuple[str, ...]]:
        """Rows for people: few digits, nothing for what is missing."""
        return [tuple(show_cell(cell) for cell in row) for row in self.rows]


def group_table(by: str, metric: str, groups: Sequence[GroupStatistics]) -> DataTable:
    """One row a group, best mean first."""
    columns = (by, "runs", "finished", f"mean {metric}", "deviation", "smallest", "largest", "mean runtime", "best run")
    rows = [
        (g.group, g.runs, g.finished, g.mean, g.deviation, g.smallest, g.largest, g.mean_runtime, g.best_id)
        for g in rank_groups(groups, metric)
    ]
    return DataTable(columns, tuple(rows))


def rank_groups(groups: Sequence[GroupStatistics], metric: str) -> list[GroupStatistics]:
    """Best mean first; groups without the metric last."""
    sign = 1 if lower_is_better(metric) else -1
    return sorted(groups, key=lambda group: (group.mean is None, sign * (group.mean or 0.0), str(group.group)))


def metrics_table(lines: Sequence[MetricStatistics]) -> DataTable:
    columns = ("metric", "runs", "mean", "deviation", "smallest", "largest", "best run")
    rows = [(m.metric, m.count, m.mean, m.deviation, m.smallest, m.largest, m.best_id) for m in lines]
    return DataTable(columns, tuple(rows))


def comparison_table(comparison: Comparison) -> DataTable:
    """Differing parameters, then metrics: one column a run."""
    rows = [*comparison.parameters.items(), *comparison.metrics.items()]
    return DataTable(("name", *comparison.ids), tuple((name, *values) for name, values in rows))


def comparison_page(comparison: Comparison) -> str:
    """A comparison as HTML."""
    verdict = comparison.verdict
    return render_page(
        "comparison.html.j2",
        title=f"{len(comparison.ids)} runs compared",
        ids=list(comparison.ids),
        winner=verdict.winner,
        reason=verdict.reason,
        pairs=[_pair_cells(pair) for pair in verdict.pairs],
        legend=[(run, colour_of(index)) for index, run in enumerate(comparison.ids)],
        parameters=[(key, *map(show_cell, values)) for key, values in comparison.parameters.items()],
        metrics=[(name, _marked(name, values)) for name, values in comparison.metrics.items()],
        charts=as_svg([_curves_chart(comparison, name) for name in CHARTED if name in comparison.curves]),
    )


def group_page(by: str, metric: str, groups: Sequence[GroupStatistics]) -> str:
    """Runs grouped by model, data set or owner, as HTML."""
    measured = [group for group in rank_groups(groups, metric) if group.mean is not None][:MAX_BARS]
    means = [Bar(str(g.group), g.mean or 0.0, g.deviation or 0.0) for g in measured]
    times = [Bar(str(g.group), g.mean_runtime) for g in measured if g.mean_runtime is not None]
    return _analysis_page(
        f"{metric} by {by}",
        "Bars are means; the line at their end is one standard deviation to either side.",
        group_table(by, metric, groups),
        [bar_chart(f"Mean {metric}", means), bar_chart("Mean seconds of training", times)],
    )


def metrics_page(lines: Sequence[MetricStatistics]) -> str:
    """How every metric is spread over the runs, as HTML."""
    bars = [Bar(m.metric, m.mean, m.deviation) for m in lines if m.smallest >= 0 and m.largest <= 1]
    return _analysis_page(
        "Metrics of all runs",
        "Bars are the means of the metrics that lie between 0 and 1, with one standard deviation to either side.",
        metrics_table(lines),
        [bar_chart("Means", bars[:MAX_BARS])],
    )


def show_cell(value: Any) -> str:
    """A value for people."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format_number(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _pair_cells(pair: PairTest) -> tuple[str, ...]:
    values = pair.difference, pair.low, pair.high, pair.bootstrap_p, pair.mcnemar_p, pair.adjusted_p, pair.rows
    return (pair.other, *map(show_cell, values))


def _analysis_page(title: str, subtitle: str, table: DataTable, charts: list[str]) -> str:
    return render_page(
        "analysis.html.j2",
        title=title,
        subtitle=subtitle,
        columns=list(table.columns),
        rows=table.shown(),
        charts=as_svg(charts),
    )


def _curves_chart(comparison: Comparison, name: str) -> str:
    pairs = zip(comparison.ids, comparison.curves[name], strict=True)
    return line_chart(name, [Series(run, curve) for run, curve in pairs], "step", legend=False)


def _marked(name: str, values: Sequence[float | None]) -> list[tuple[str, bool]]:
    """Cells of a metric, and whether each is the best of its row."""
    known = [value for value in values if value is not None]
    best = (min if lower_is_better(name) else max)(known, default=None)
    marks = has_a_best(name) and len(set(known)) > 1
    return [(show_cell(value), marks and value is not None and value == best) for value in values]


def _harmless(cell: Any) -> Any:
    """A text that begins like a formula is quoted, as OWASP advises; numbers stay numbers."""
    if isinstance(cell, str) and cell.startswith(FORMULA_STARTS):
        return f"'{cell}"
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell
