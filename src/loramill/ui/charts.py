"""Charts of the page: every axis with its unit, colours that can be told apart, names of strangers as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from loramill.ui.plain import visible
from loramill.ui.texts import t

HEIGHT = 250
BAR_PIXELS = 26
LEAST_SPAN = 0.05
MAX_LABELS = 8
MAX_BARS = 10
ROOM_FOR_FIGURES = 1.14
SERIES, X, Y, END = "series", "x", "y", "end"
PADDING = {"left": 2, "right": 6, "top": 6, "bottom": 2}

INK = {"light": "#1f2430", "dark": "#e7e9ee"}
"""Figures within a chart, which Streamlit's theme leaves black."""

LEAST_TO_MOST = {"light": ["#440154", "#21908c", "#c8a400"], "dark": ["#9a86e8", "#3fc79a", "#fde725"]}
"""Viridis, without the ends that the paper swallows."""

Points = Sequence[Sequence[float]]
Layers = alt.Chart | alt.LayerChart


def draw_lines(
    series: Mapping[str, Points], *, x: str, y: str, key: str, height: int = HEIGHT, from_zero: bool = False
) -> None:
    """Lines over a shared axis; a line of one point is a dot. Says so when there is nothing yet."""
    rows = [(visible(name, 60), *point) for name, points in series.items() for point in points]
    if not rows:
        st.caption(t("chart.empty", what=y))
        return
    frame = pd.DataFrame(rows, columns=[SERIES, X, Y])
    names = list(dict.fromkeys(frame[SERIES]))
    legend = alt.Legend(title=None, orient="top", labelLimit=190, columns=2, symbolType="stroke", padding=0, offset=8)
    line = (
        alt.Chart(frame)
        .mark_line(point={"size": 26} if len(frame) < 60 * len(names) else False, strokeWidth=2)
        .encode(
            x=alt.X(X, type="quantitative", title=x, axis=_axis(tickCount=6, format="~s", grid=False)),
            y=alt.Y(Y, type="quantitative", title=y, scale=_y_scale(frame[Y], from_zero), axis=_axis(tickCount=5)),
            color=alt.Color(SERIES, type="nominal", sort=names, legend=legend if len(names) > 1 else None),
            tooltip=[
                alt.Tooltip(SERIES, type="nominal", title=t("chart.run")),
                alt.Tooltip(X, type="quantitative", title=x),
                alt.Tooltip(Y, type="quantitative", title=y, format=".5g"),
            ],
        )
    )
    _show(line, height, key)


def _theme() -> str:
    """``light`` or ``dark``; without a browser there is neither."""
    return st.context.theme.type or "light"


def _axis(**options: Any) -> alt.Axis:
    """Near to what it measures: the theme leaves much room between ticks, numbers and title."""
    return alt.Axis(titlePadding=6, labelPadding=4, **options)


def _show(chart: Layers, height: int, key: str) -> None:
    st.altair_chart(chart.properties(height=height, padding=PADDING), width="stretch", key=key)


def _y_scale(values: pd.Series, from_zero: bool) -> alt.Scale:
    """Not so narrow that noise looks like a cliff: an axis spans a twentieth of its greatest value at least."""
    low, high = float(values.min()), float(values.max())
    if from_zero or high - low >= abs(high) * LEAST_SPAN:
        return alt.Scale(zero=from_zero)
    half = max(abs(high) * LEAST_SPAN / 2, 1e-9)
    middle = (low + high) / 2
    return alt.Scale(domain=[middle - half, middle + half], nice=True)


def draw_bars(values: Mapping[str, float], *, x: str, y: str, key: str) -> None:
    """Horizontal bars, the longest first, each with its figure; the shortest of very many share the last one."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    if len(ordered) > MAX_BARS:
        rest = ordered[MAX_BARS - 1 :]
        ordered[MAX_BARS - 1 :] = [(t("chart.rest", count=len(rest)), sum(value for _, value in rest))]
    frame = pd.DataFrame([(visible(name, 40), value) for name, value in ordered], columns=[SERIES, Y])
    room = alt.Scale(domainMin=0, domainMax=max([value for _, value in ordered], default=1) * ROOM_FOR_FIGURES)
    figures = alt.Axis(labels=False, ticks=False, grid=False, domain=False, titlePadding=2)
    base = alt.Chart(frame).encode(
        y=alt.Y(
            SERIES, type="nominal", title=None, sort=list(frame[SERIES]),
            axis=alt.Axis(labelLimit=200, labelOverlap=False, ticks=False, domain=False),
        ),
        x=alt.X(Y, type="quantitative", title=y, scale=room, axis=figures),
        tooltip=[
            alt.Tooltip(SERIES, type="nominal", title=x),
            alt.Tooltip(Y, type="quantitative", title=y, format=",.5~g"),
        ],
    )  # fmt: skip
    bars = base.mark_bar(cornerRadiusEnd=3, height={"band": 0.7})
    ends = base.mark_text(align="left", dx=5, fontSize=12, color=INK[_theme()]).encode(
        text=alt.Text(Y, type="quantitative", format=",.4~g")
    )
    _show(bars + ends, 36 + BAR_PIXELS * len(frame), key)


def draw_histogram(edges: Sequence[float], counts: Sequence[int], *, x: str, y: str, key: str) -> None:
    """How many values lie between each edge and the next; empty ends are left out."""
    filled = [place for place, count in enumerate(counts) if count]
    places = range(filled[0], filled[-1] + 1) if filled else range(0)
    frame = pd.DataFrame([(edges[place], edges[place + 1], counts[place]) for place in places], columns=[X, END, Y])
    chart = (
        alt.Chart(frame)
        .mark_bar(binSpacing=1)
        .encode(
            x=alt.X(X, type="quantitative", title=x, bin="binned", axis=_axis(tickCount=8, grid=False)),
            x2=alt.X2(END),
            y=alt.Y(Y, type="quantitative", title=y, axis=_axis(tickCount=4)),
            tooltip=[alt.Tooltip(X, title=x), alt.Tooltip(END, title="…"), alt.Tooltip(Y, title=y, format=",")],
        )
    )
    _show(chart, HEIGHT, key)


def draw_parallel(trials: Sequence[Mapping[str, Any]], axes: Sequence[str], score: str, *, key: str) -> None:
    """Parallel coordinates: a line for each trial over its parameters and its score.

    Each axis runs from its least to its greatest value (words by their order), and says both; if there are few, all.
    """
    scales = {axis: _scale([trial.get(axis) for trial in trials]) for axis in axes}
    rows = [
        (visible(trial["trial"], 40), visible(axis, 40), scales[axis][trial[axis]], _short(trial[axis]), trial[score])
        for trial in trials
        for axis in axes
        if trial.get(axis) is not None
    ]
    frame = pd.DataFrame(rows, columns=["trial", "axis", "height", "value", "score"])
    base = alt.Chart(frame).encode(
        x=alt.X(
            "axis", type="nominal", title=None, sort=[visible(axis, 40) for axis in axes],
            axis=alt.Axis(labelAngle=0, grid=True, domain=False, ticks=False, orient="top"),
        ),
        y=alt.Y("height", type="quantitative", axis=None, scale=alt.Scale(domain=[-0.05, 1.05])),
    )  # fmt: skip
    lines = base.mark_line(opacity=0.8, strokeWidth=2).encode(
        color=alt.Color(
            "score", type="quantitative", title=score, scale=alt.Scale(range=LEAST_TO_MOST[_theme()], interpolate="lab")
        ),
        detail="trial",
        tooltip=[alt.Tooltip("trial", type="nominal"), alt.Tooltip("score", type="quantitative", title=score)],
    )
    labelled = frame.drop_duplicates(["axis", "value"])
    crowded = labelled.groupby("axis")["value"].transform("size") > MAX_LABELS
    values = alt.Chart(labelled[~crowded | labelled["height"].isin((0, 1))]).encode(base.encoding.x, base.encoding.y)
    ends = values.mark_text(dx=-7, dy=-7, align="right", fontSize=12, color=INK[_theme()]).encode(text="value")
    _show(lines + ends, 320, key)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else visible(value)


def _scale(values: Sequence[Any]) -> dict[Any, float]:
    """Value -> 0 to 1: by size where all are numbers, else by order."""
    known = [value for value in dict.fromkeys(values) if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        low, high = min(known, default=0), max(known, default=1)
        return {value: (value - low) / (high - low) if high > low else 0.5 for value in known}
    ordered = sorted(known, key=str)
    return {value: place / max(1, len(ordered) - 1) for place, value in enumerate(ordered)}
