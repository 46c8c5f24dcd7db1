"""The report as one HTML file that needs no network: text, tables and plots as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from loramill.data.analyzer import Lengths, SplitAnalysis
from loramill.data.findings import SEVERITIES, Finding, ValidationReport

SHOWN_FOR_EACH = 20
WIDTH, BAR, LABEL_WIDTH = 640, 22, 150
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin-top: 2.5rem } h3 { font-size: 1rem; margin-bottom: .3rem }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 } th, td { text-align: left; padding: .3rem .6rem;
       border-bottom: 1px solid #d8dee4; vertical-align: top } th { font-weight: 600 }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
td.excerpt { font-family: ui-monospace, monospace; font-size: .85rem; overflow-wrap: anywhere }
.error { color: #b42318; font-weight: 600 } .warning { color: #8a5a00; font-weight: 600 } .info { color: #44546a }
svg { max-width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #1b1f24 }
svg rect { fill: #2f6f9f }
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
    languages = ", ".join(f"{escape(name)} {share:.1%}" for name, share in list(split.languages.items())[:6])
    facts = [
        f"{split.rows:,} rows, {split.distinct_texts:,} distinct texts, {split.near_duplicates:,} near copies",
        f"Languages: {languages}",
        f"{split.vocabulary.words:,} words, {split.vocabulary.distinct:,} different, "
        f"{split.vocabulary.once:,} of them once",
    ]
    plots = [bar_chart(split.label_counts, f"Labels of {split.name}")] if split.label_counts else []
    for name, lengths in (("characters", split.characters), ("words", split.words), ("tokens", split.tokens)):
        if lengths is not None:
            plots += [f"<h3>Length in {name}</h3>", _length_line(lengths), histogram(lengths, f"Length in {name}")]
    words = ", ".join(f"{escape(word)} ({count:,})" for word, count in split.vocabulary.most_frequent)
    return (
        f"<h2>Split {escape(split.name)}</h2>{_list(facts, escaped=True)}{''.join(plots)}"
        f"<h3>Most frequent words</h3><p>{words}</p>{_examples(split.examples)}"
    )


def _examples(examples: Mapping[str, Sequence[str]]) -> str:
    rows = [(label, text) for label, texts in examples.items() for text in texts]
    if not rows:
        return ""
    cells = "".join(f'<tr><td>{escape(label)}</td><td class="excerpt">{escape(text)}</td></tr>' for label, text in rows)
    return f"<h3>Examples</h3><table><tr><th>label</th><th>text</th></tr>{cells}</table>"


def _length_line(lengths: Lengths) -> str:
    return (
        f"<p>from {lengths.minimum:,} to {lengths.maximum:,}; median {lengths.median:g}, mean {lengths.mean:g}, "
        f"95% up to {lengths.p95:g}, 99% up to {lengths.p99:g}</p>"
    )


def _summary(report: ValidationReport) -> str:
    balance = "balanced" if report.is_balanced else "not balanced"
    counts = "".join(
        f'<tr><td class="{severity}">{severity}</td><td>{escape(code)}</td><td class="number">{count:,}</td></tr>'
        for severity, code, count in _counts(report)
    )
    table = f'<table><tr><th>severity</th><th>code</th><th class="number">rows</th></tr>{counts}</table>'
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
    return f"<table>{head}{''.join(map(_finding, shown))}</table>{more}"


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
