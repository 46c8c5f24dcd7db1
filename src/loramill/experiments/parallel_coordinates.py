"""Parallel coordinates as plain SVG: one line for each trial, through its value on every axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from loramill.experiments.charts import COLOURS, format_number

AXIS_GAP, HEIGHT, TOP, BOTTOM, SIDE = 170, 340, 64, 28, 90
LOG_RATIO = 5
"""Positive numbers whose ends differ by this factor stand on a logarithmic axis."""
HALO = 'paint-order="stroke" stroke="#fff" stroke-width="4"'
"""Around the axes' labels, which lines go through."""
FAINT = "#9aa4b2"
MOST_TICKS = 8


@dataclass(frozen=True)
class CoordinateLine:
    """One trial: its value on each axis, and how it is drawn."""

    name: str
    values: Mapping[str, object]
    highlighted: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class _Axis:
    """Where each value of one key stands: 0 at the bottom, 1 at the top."""

    name: str
    ticks: Sequence[tuple[str, float]]
    places: Mapping[object, float]


def parallel_coordinates(title: str, lines: Sequence[CoordinateLine], axes: Sequence[str]) -> str:
    """Trials as lines over the axes in this order; highlighted ones are drawn last and thick.

    Numbers are placed by value, on a logarithmic axis when they span a factor of five; other values in their order.
    """
    if not lines or not axes:
        return ""
    lines = [replace(line, values={key: _plain(value) for key, value in line.values.items()}) for line in lines]
    placed = [_axis(name, [line.values.get(name) for line in lines]) for name in axes]
    width = 2 * SIDE + AXIS_GAP * max(1, len(axes) - 1)
    parts = [_draw_line(line, placed) for line in sorted(lines, key=lambda line: line.highlighted)]
    parts += [_draw_axis(axis, index) for index, axis in enumerate(placed)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12" fill="#333">'
        f'<rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="12" y="20" font-size="14" font-weight="600">{escape(title)}</text>{"".join(parts)}</svg>\n'
    )


def _plain(value: object) -> object:
    """Lists, such as target modules, as one word."""
    return value if isinstance(value, str | int | float | None) else str(value)


def _axis(name: str, values: Sequence[object]) -> _Axis:
    known = list(dict.fromkeys(value for value in values if value is not None))
    numbers = [float(value) for value in known if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(known) or not numbers:
        places = {value: (index + 0.5) / len(known) for index, value in enumerate(known)}
        return _Axis(name, [(str(value), place) for value, place in places.items()], places)
    low, high = min(numbers), max(numbers)
    logarithmic = low > 0 and high / low >= LOG_RATIO
    scale = math.log if logarithmic else float
    span = scale(high) - scale(low)
    places = {value: (scale(value) - scale(low)) / span if span else 0.5 for value in numbers}
    shown = sorted(numbers) if len(numbers) <= MOST_TICKS else [low, high]
    return _Axis(name, [(format_number(value), places[value]) for value in shown], places)


def _x(index: int) -> float:
    return SIDE + index * AXIS_GAP


def _y(place: float) -> float:
    return HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)


def _draw_axis(axis: _Axis, index: int) -> str:
    x = _x(index)
    parts = [
        f'<path d="M{x:.0f} {TOP}V{HEIGHT - BOTTOM}" stroke="#888"/>',
        f'<text x="{x:.0f}" y="{TOP - 14}" text-anchor="middle" font-weight="600">{escape(_short(axis.name))}</text>',
    ]
    drawn: list[float] = []
    for label, place in axis.ticks:
        y = _y(place)
        if all(abs(y - other) >= 12 for other in drawn):
            drawn.append(y)
            parts.append(
                f'<text x="{x - 7:.0f}" y="{y + 4:.1f}" text-anchor="end" fill="#555" {HALO}>{escape(label)}</text>'
            )
    return "".join(parts)


def _draw_line(line: CoordinateLine, axes: Sequence[_Axis]) -> str:
    """A line through the axes that it has a value on."""
    points = [
        f"{_x(index):.1f} {_y(axis.places[line.values[axis.name]]):.1f}"
        for index, axis in enumerate(axes)
        if line.values.get(axis.name) is not None
    ]
    if len(points) < 2:
        return ""
    colour, stroke = (COLOURS[2], 3) if line.highlighted else (COLOURS[0] if not line.dashed else FAINT, 1.3)
    dashes = ' stroke-dasharray="4 3"' if line.dashed else ""
    return (
        f'<path d="M{"L".join(points)}" stroke="{colour}" stroke-width="{stroke}"{dashes} fill="none" '
        f'stroke-opacity="{1 if line.highlighted else 0.7}"><title>{escape(line.name)}</title></path>'
    )


def _short(name: str) -> str:
    """The last part of a config key, which is what differs."""
    return name.rpartition(".")[2]
