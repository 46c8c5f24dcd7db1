"""The report as one HTML file that needs no network: text, tables and plots as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from loramill.data.analyzer import Lengths, SplitAnalysis
from loramill.data.findings import SEVERITIES, Finding, ValidationReport

SHOWN_FOR_EACH = 20
LEAST_SHARE = 0.001
WIDTH, BAR, LABEL_WIDTH = 640, 22, 150
STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans TC", sans-serif; color: #1f2430; background: #fff; max-width: 1180px;
       margin: 0 auto; padding: 32px 24px 64px; box-sizing: border-box }
h1 { font-size: 26px; line-height: 1.2; overflow-wrap: anywhere } h2 { font-size: 18px; margin: 36px 0 12px }
h3 { font-size: 15px; margin: 0 0 4px } .charts ~ h3 { margin-top: 20px } p { margin: 4px 0 } .soft { color: #5d6472 }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 16px }
figure { margin: 0; padding: 12px 16px; border: 1px solid #e3e6eb; border-radius: 8px }
.scroll { overflow-x: auto; margin: 8px 0 20px; border: 1px solid #e3e6eb; border-radius: 8px }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th, td { text-align: left; padding: 7px 12px; border-top: 1px solid #e3e6eb; vertical-align: top }
tr:first-child th { border-top: 0; background: #f5f7fa; font-weight: 600; white-space: nowrap }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
td.excerpt { overflow-wrap: anywhere }
.error { color: #b3261e; font-weight: 600 } .warning { color: #8a5a00; font-weight: 600 } .info { color: #5d6472 }
svg { width: 100%; height: auto } svg text { font: 13px system-ui, sans-serif; fill: #1f2430 }
svg rect { fill: #0072b2 }
"""


def render_report(
    origin: str,
    report: ValidationReport | None,
    analysis: Mapping[str, SplitAnalysis],
    notes: Sequence[str] = (),
) -> str:
    """A whole HTML page; every value of the data is escaped."""
    parts = [f"<h1>Data report: {escape(origin)}</h1>", _list(notes)]
    if report is not None:
        parts += [_summary(report), _findings(report)]
    parts += [_split(split) for split in analysis.values()]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Data report: {escape(origin)}</title><style>{STYLE}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def bar_chart(values: Mapping[str, float], title: str) -> str:
    """Horizontal bars with their names and numbers, as SVG."""
    largest = max(values.values(), default=0) or 1
    bars = []
    for number, (name, value) in enumerate(values.items()):
        y = number * BAR
        length = (WIDTH - LABEL_WIDTH - 90) * value / largest
        shown = f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:.1%}"
        label = name if len(name) <= 20 else f"{name[:19]}…"
        bars.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{LABEL_WIDTH}" y="{y + 3}" width="{length:.1f}" height="{BAR - 6}"></rect>'
            f'<text x="{LABEL_WIDTH + length + 6:.1f}" y="{y + 15}">{shown}</text>'
        )
    return _svg(title, WIDTH, max(1, len(values)) * BAR + 4, bars)


def histogram(lengths: Lengths, title: str) -> str:
    """Vertical bars over lengths, as SVG; the last bar holds everything longer."""
    if not lengths.counts:
        return ""
    height, largest = 140, max(lengths.counts) or 1
    width = WIDTH / len(lengths.counts)
    bars = [
        f'<rect x="{number * width + 1:.1f}" y="{height - height * count / largest:.1f}" width="{width - 2:.1f}" '
        f'height="{height * count / largest:.1f}"><title>{lengths.edges[number]} to {lengths.edges[number + 1] - 1}: '
        f"{count:,}</title></rect>"
        for number, count in enumerate(lengths.counts)
    ]
    ticks = [(0, "start"), (len(lengths.counts) // 2, "middle"), (len(lengths.counts), "end")]
    bars += [
        f'<text x="{number * width:.1f}" y="{height + 16}" text-anchor="{anchor}">{lengths.edges[number]:g}'
        f"{'+' if anchor == 'end' else ''}</text>"
        for number, anchor in ticks
    ]
    return _svg(title, WIDTH, height + 22, bars)


def _split(split: SplitAnalysis) -> str:
    shares = [(name, share) for name, share in split.languages.items() if share >= LEAST_SHARE]
    languages = ", ".join(f"{escape(name)} {share:.1%}" for name, share in shares[:6])
    facts = [
        f"{split.rows:,} rows, {split.distinct_texts:,} distinct texts, {split.near_duplicates:,} near copies",
        f"Languages: {languages}",
        f"{split.vocabulary.words:,} words, {split.vocabulary.distinct:,} different, "
        f"{split.vocabulary.once:,} of them once",
    ]
    labels = bar_chart(split.label_counts, f"Labels of {split.name}")
    plots = [f"<figure><h3>Rows by label</h3>{labels}</figure>"] if split.label_counts else []
    for name, lengths in (("characters", split.characters), ("words", split.words), ("tokens", split.tokens)):
        if lengths is not None:
            bars = histogram(lengths, f"Length in {name}")
            plots.append(f"<figure><h3>Length in {name}</h3>{_length_line(lengths)}{bars}</figure>")
    words = ", ".join(f"{escape(word)} ({count:,})" for word, count in split.vocabulary.most_frequent)
    return (
        f"<h2>Split {escape(split.name)}</h2>{_list(facts, escaped=True)}"
        f'<section class="charts">{"".join(plots)}</section>'
        f"<h3>Most frequent words</h3><p>{words}</p>{_examples(split.examples)}"
    )


def _examples(examples: Mapping[str, Sequence[str]]) -> str:
    rows = [(label, text) for label, texts in examples.items() for text in texts]
    if not rows:
        return ""
    cells = "".join(f'<tr><td>{escape(label)}</td><td class="excerpt">{escape(text)}</td></tr>' for label, text in rows)
    head = "<tr><th>label</th><th>text</th></tr>"
    return f'<h3>Examples</h3><div class="scroll"><table>{head}{cells}</table></div>'


def _length_line(lengths: Lengths) -> str:
    return (
        f'<p class="soft">from {lengths.minimum:,} to {lengths.maximum:,}; median {lengths.median:g}, '
        f"mean {lengths.mean:g}, 95% up to {lengths.p95:g}, 99% up to {lengths.p99:g}</p>"
    )


def _summary(report: ValidationReport) -> str:
    balance = "balanced" if report.is_balanced else "not balanced"
    counts = "".join(
        f'<tr><td class="{severity}">{severity}</td><td>{escape(code)}</td><td class="number">{count:,}</td></tr>'
        for severity, code, count in _counts(report)
    )
    head = '<tr><th>severity</th><th>code</th><th class="number">rows</th></tr>'
    table = f'<div class="scroll"><table>{head}{counts}</table></div>'
    return (
        f"<p>{report.total_samples:,} rows; largest class over smallest {report.imbalance_ratio:g} ({balance}).</p>"
        f"<h2>Findings</h2>{table if counts else '<p>None.</p>'}"
    )


def _counts(report: ValidationReport) -> list[tuple[str, str, int]]:
    rows = [(report.severity_of(code), code, count) for code, count in report.finding_counts.items()]
    return sorted(rows, key=lambda row: (SEVERITIES.index(row[0]), row[1]))


def _findings(report: ValidationReport) -> str:
    shown = report.examples(SHOWN_FOR_EACH)
    if not shown:
        return ""
    left_out = sum(report.finding_counts.values()) - len(shown)
    more = f"<p>{left_out:,} more are in the JSON report.</p>" if left_out else ""
    head = "<tr><th>code</th><th>split</th><th>row</th><th>column</th><th>what</th><th>fix</th></tr>"
    return f'<div class="scroll"><table>{head}{"".join(map(_finding, shown))}</table></div>{more}'


def _finding(finding: Finding) -> str:
    row = "" if finding.row is None else str(finding.row)
    return (
        f'<tr><td class="{finding.severity}">{escape(finding.code)}</td><td>{escape(finding.split)}</td>'
        f'<td class="number">{row}</td><td>{escape(finding.column or "")}</td>'
        f'<td class="excerpt">{escape(finding.excerpt)}</td><td>{escape(finding.fix)}</td></tr>'
    )


def _list(lines: Iterable[str], *, escaped: bool = False) -> str:
    items = "".join(f"<li>{line if escaped else escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
