"""Charts as plain SVG: readable without a network or a library, small in a page, drawn in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from loramill.experiments.curves import Curve

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b6b", "#8c5c1a")
"""Okabe and Ito's palette, which readers with any colour vision can tell apart."""

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 56, 40
MAX_POINTS = 600
"""Points drawn of one curve: more than the pixels can show make a page heavy for nothing."""


@dataclass(frozen=True)
class Series:
    """One named line."""

    name: str
    points: Curve


@dataclass(frozen=True)
class Bar:
    """One named bar; ``spread`` is half the length of its error bar."""

    name: str
    value: float
    spread: float = 0.0


@dataclass(frozen=True)
class _Frame:
    """From values to pixels, for a box with room for axes."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def line_chart(
    title: str, series: Sequence[Series], x_label: str, *, legend: bool = True, from_zero: bool = False
) -> str:
    """Lines over a shared axis, coloured by their place in ``series``; nothing when none has a point."""
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    frame = _frame([*points, (points[0][0], 0.0)] if from_zero else points)
    parts = [_axes(frame, x_label)]
    parts += [_line(frame, one, index) for index, one in enumerate(series) if one.points]
    if legend and len(series) > 1:
        parts.append(_legend([one.name for one in series]))
    return _svg(title, parts)


def calibration_chart(title: str, points: Curve) -> str:
    """Accuracy over confidence, both from 0 to 1, with the line where they are equal."""
    if not points:
        return ""
    frame = _Frame(0, 1, 0, 1)
    path = f"M{frame.x(0):.1f} {frame.y(0):.1f}L{frame.x(1):.1f} {frame.y(1):.1f}"
    equality = f'<path d="{path}" stroke="#999" stroke-dasharray="4 4" fill="none"/>'
    return _svg(title, [_axes(frame, "confidence"), equality, _line(frame, Series("accuracy", points), 0)])


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars from 0, the longest name first given the most room."""
    if not bars:
        return ""
    row, left = 26, 220
    largest = max((bar.value + bar.spread for bar in bars), default=0.0) or 1.0
    scale = (WIDTH - left - 80) / largest
    parts = []
    for index, bar in enumerate(bars):
        top, width = TOP + index * row, max(bar.value, 0.0) * scale
        middle, after = top + row / 2 - 3, left + width + bar.spread * scale + 6
        parts.append(
            f'<text x="{left - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(_short(bar.name, 32))}</text>'
            f'<rect x="{left}" y="{top}" width="{width:.1f}" height="{row - 8}" fill="{COLOURS[0]}"/>'
            f'<text x="{after:.1f}" y="{middle + 4:.1f}">{format_number(bar.value)}</text>'
        )
        if bar.spread:
            ends = left + (bar.value - bar.spread) * scale, left + (bar.value + bar.spread) * scale
            parts.append(f'<path d="M{ends[0]:.1f} {middle:.1f}H{ends[1]:.1f}" stroke="#333" stroke-width="1.5"/>')
    return _svg(title, parts, height=TOP + len(bars) * row + 8)


def matrix_chart(title: str, cells: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """A confusion matrix: rows are true classes, columns predicted ones; darker is a larger share of the row."""
    size = len(cells)
    if not size:
        return ""
    cell = min(90.0, 380 / size)
    left, top = 150, 66
    parts = [f'<text x="{left}" y="{top - 24}" fill="#666">predicted</text>']
    for index, name in enumerate(names):
        place = index * cell + cell / 2
        shown = escape(_short(name, 16))
        parts.append(f'<text x="{left - 8}" y="{top + place + 4:.1f}" text-anchor="end">{shown}</text>')
        parts.append(
            f'<text x="{left + place:.1f}" y="{top - 8}" text-anchor="middle">{escape(_short(name, 10))}</text>'
        )
    for true, row in enumerate(cells):
        total = sum(row) or 1
        for predicted, count in enumerate(row):
            parts.append(_cell(left + predicted * cell, top + true * cell, cell, count, count / total))
    width, height = max(WIDTH, left + size * cell + 16), max(HEIGHT, top + size * cell + 16)
    return _svg(title, parts, width=round(width), height=round(height))


def format_number(value: float) -> str:
    """At most four significant digits; thousands as 12.3k, bytes-like sizes as 1.2G."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.3g}{letter}"
    return f"{value:.4g}"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high`` (steps of 1, 2 or 5 times a power of ten)."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _frame(points: Sequence[tuple[float, float]]) -> _Frame:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    room = (max(ys) - min(ys)) * 0.05 or abs(max(ys)) * 0.05 or 1.0
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    return _Frame(x_low, x_high, min(ys) - room, max(ys) + room)


def _axes(frame: _Frame, x_label: str) -> str:
    parts = []
    for value in nice_ticks(frame.y_low, frame.y_high):
        y = f"{frame.y(value):.1f}"
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y}" dy="4" text-anchor="end">{format_number(value)}</text>')
    for value in nice_ticks(frame.x_low, frame.x_high):
        x = f"{frame.x(value):.1f}"
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{format_number(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<path d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}" stroke="#888"/>')
    label = f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle" fill="#666">{escape(x_label)}</text>'
    return "".join([*parts, label])


def colour_of(index: int) -> str:
    """Colour of the line at this place; beyond the palette the same ones come again, dashed."""
    return COLOURS[index % len(COLOURS)]


def _line(frame: _Frame, series: Series, index: int) -> str:
    points, colour = _thin(series.points), colour_of(index)
    dashes = f' stroke-dasharray="{6 // (index // len(COLOURS))} 3"' if index >= len(COLOURS) else ""
    places = [(frame.x(x), frame.y(y)) for x, y in points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    marks = ""
    if len(places) <= 30:
        marks = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">'
            f"<title>{escape(series.name)}: {format_number(value)} at {format_number(step)}</title></circle>"
            for (x, y), (step, value) in zip(places, points, strict=True)
        )
    return f'<path d="{path}" stroke="{colour}" stroke-width="2"{dashes} fill="none"/>{marks}'


def _legend(names: Sequence[str]) -> str:
    parts, x = [], float(LEFT)
    for index, name in enumerate(names):
        shown = _short(name, 24)
        if x + 8 * len(shown) > WIDTH:
            parts.append(f'<text x="{x:.0f}" y="36">+{len(names) - index} more</text>')
            break
        parts.append(f'<rect x="{x:.0f}" y="28" width="10" height="10" fill="{colour_of(index)}"/>')
        parts.append(f'<text x="{x + 14:.0f}" y="37">{escape(shown)}</text>')
        x += 30 + 7.3 * len(shown)
    return "".join(parts)


def _cell(x: float, y: float, size: float, count: int, share: float) -> str:
    ink = "#fff" if share > 0.5 else "#222"
    text = ""
    if size >= 24:
        place = f'x="{x + size / 2:.1f}" y="{y + size / 2 + 4:.1f}"'
        text = f'<text {place} text-anchor="middle" fill="{ink}">{count}</text>'
    box = f'x="{x:.1f}" y="{y:.1f}" width="{size - 2:.1f}" height="{size - 2:.1f}"'
    return (
        f'<rect {box} fill="{COLOURS[0]}" fill-opacity="{0.06 + 0.9 * share:.3f}"><title>{count}</title></rect>{text}'
    )


def _thin(points: Curve) -> Curve:
    """At most ``MAX_POINTS`` of a curve: its ends, and the lowest and highest point of each stretch between."""
    if len(points) <= MAX_POINTS:
        return points
    stretch = math.ceil(len(points) / (MAX_POINTS // 2))
    kept = [points[0]]
    for first in range(0, len(points), stretch):
        part = points[first : first + stretch]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return (*kept, points[-1])


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _svg(title: str, parts: Sequence[str], width: int = WIDTH, height: int = HEIGHT) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12" fill="#333">'
        f'<rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="12" y="20" font-size="14" font-weight="600">{escape(title)}</text>{"".join(parts)}</svg>\n'
    )
