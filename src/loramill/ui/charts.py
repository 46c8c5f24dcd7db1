"""Charts of the page: every axis with its unit, colours that can be told apart, names of strangers as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from loramill.ui.plain import visible
from loramill.ui.texts import t

HEIGHT = 240
LEAST_SPAN = 0.05
SERIES, X, Y = "series", "x", "y"

Points = Sequence[Sequence[float]]


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
    legend = alt.Legend(title=None, orient="bottom", labelLimit=340, columns=2, symbolType="stroke")
    line = (
        alt.Chart(frame)
        .mark_line(point={"size": 26} if len(frame) < 60 * len(names) else False, strokeWidth=2)
        .encode(
            x=alt.X(X, type="quantitative", title=x, axis=alt.Axis(tickCount=8, format="~s")),
            y=alt.Y(Y, type="quantitative", title=y, scale=_y_scale(frame[Y], from_zero), axis=alt.Axis(tickCount=5)),
            color=alt.Color(SERIES, type="nominal", sort=names, legend=legend if len(names) > 1 else None),
            tooltip=[
                alt.Tooltip(SERIES, type="nominal", title=t("chart.run")),
                alt.Tooltip(X, type="quantitative", title=x),
                alt.Tooltip(Y, type="quantitative", title=y, format=".5g"),
            ],
        )
        .properties(height=height)
    )
    st.altair_chart(line, width="stretch", key=key)


def _y_scale(values: pd.Series, from_zero: bool) -> alt.Scale:
    """Not so narrow that noise looks like a cliff: an axis spans a twentieth of its greatest value at least."""
    low, high = float(values.min()), float(values.max())
    if from_zero or high - low >= abs(high) * LEAST_SPAN:
        return alt.Scale(zero=from_zero)
    half = max(abs(high) * LEAST_SPAN / 2, 1e-9)
    middle = (low + high) / 2
    return alt.Scale(domain=[middle - half, middle + half], nice=True)


def draw_bars(values: Mapping[str, float], *, x: str, y: str, key: str, height: int = HEIGHT) -> None:
    """Horizontal bars in the order given."""
    frame = pd.DataFrame([(visible(name, 40), value) for name, value in values.items()], columns=[SERIES, Y])
    chart = (
        alt.Chart(frame)
        .mark_bar(cornerRadiusEnd=3)
        .encode(
            y=alt.Y(SERIES, type="nominal", title=x, sort=list(frame[SERIES]), axis=alt.Axis(labelLimit=220)),
            x=alt.X(Y, type="quantitative", title=y),
            tooltip=[
                alt.Tooltip(SERIES, type="nominal", title=x),
                alt.Tooltip(Y, type="quantitative", title=y, format=".5g"),
            ],
        )
        .properties(height=min(height, 84 + 30 * len(frame)))
    )
    st.altair_chart(chart, width="stretch", key=key)


def draw_parallel(trials: Sequence[Mapping[str, Any]], axes: Sequence[str], score: str, *, key: str) -> None:
    """Parallel coordinates: a line for each trial over its parameters and its score.

    Each axis runs from its least to its greatest value (words by their order), and says both.
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
            "axis", type="nominal", title=None, sort=[visible(axis, 40) for axis in axes], axis=alt.Axis(labelAngle=0)
        ),
        y=alt.Y("height", type="quantitative", axis=None, scale=alt.Scale(domain=[-0.05, 1.05])),
    )
    lines = base.mark_line(opacity=0.75, strokeWidth=2).encode(
        color=alt.Color("score", type="quantitative", title=score, scale=alt.Scale(scheme="viridis")),
        detail="trial",
        tooltip=[alt.Tooltip("trial", type="nominal"), alt.Tooltip("score", type="quantitative", title=score)],
    )
    ends = base.mark_text(dx=8, align="left", fontSize=11).encode(text="value")
    st.altair_chart((lines + ends).properties(height=320), width="stretch", key=key)


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
