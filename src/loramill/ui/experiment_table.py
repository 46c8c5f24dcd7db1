"""Experiments as a table, as the lists of several pages show them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from loramill.ui.formats import ABSENT, moment
from loramill.ui.parts import table_height
from loramill.ui.plain import visible
from loramill.ui.texts import t

STATUS_COLOURS = {
    "PENDING": "gray",
    "STARTED": "blue",
    "PROGRESS": "blue",
    "SUCCESS": "green",
    "FAILURE": "red",
    "REVOKED": "orange",
    "PRUNED": "orange",
    "DELETED": "gray",
}
LONG_ID = re.compile(r"([0-9a-f]{8})[0-9a-f]{24}")


def draw_table(
    items: Sequence[dict[str, Any]],
    *,
    key: str,
    extra: Sequence[str] = (),
    owners: bool = False,
    finished: bool = False,
    most: int = 14,
) -> list[str]:
    """The experiments in order; returns the ids of those that are ticked.

    Args:
        extra: metrics that get a column of their own.
        owners: whether a column says whose they are.
        finished: whether all of them are, so that their stage is worth more than their status.
        most: rows to be seen without scrolling.
    """
    frame = pd.DataFrame([_row(item, extra, owners, finished) for item in items])
    figure = st.column_config.NumberColumn(format="%.4f", width=85)
    columns: dict[str, Any] = {
        t("column.name"): st.column_config.TextColumn(width=150),
        t("column.status"): status_column(),
        t("column.accuracy"): figure,
        t("column.runtime"): st.column_config.NumberColumn(format="%.1f s", width=105),
        t("column.model"): st.column_config.TextColumn(width=180),
        t("column.data"): st.column_config.TextColumn(width=165),
        t("column.created"): st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm", width=130),
        **{visible(name): figure for name in extra},
    }
    event = st.dataframe(
        frame,
        hide_index=True,
        height=table_height(len(frame), most),
        on_select="rerun",
        selection_mode="multi-row",
        key=key_for_rows(key, [item["id"] for item in items]),
        placeholder="",
        column_config=columns,
        alt=t("models.title") if finished else t("experiments.title"),
    )
    return [items[place]["id"] for place in event["selection"]["rows"] if place < len(items)]


def key_for_rows(key: str, ids: Sequence[str]) -> str:
    """A table's key. Streamlit keeps ticks by their places: where other rows stand, none may be left."""
    return f"{key}_{hash(tuple(ids)):x}"


def status_column() -> Any:
    """Words on the colour of how it went."""
    words = [t(f"status.{status}") for status in STATUS_COLOURS]
    return st.column_config.MultiselectColumn(options=words, color=list(STATUS_COLOURS.values()), width=90)


def short_source(name: str) -> str:
    """Where data come from, with long ids cut: eight digits tell them apart."""
    return visible(LONG_ID.sub(r"\1…", name), 60)


def _row(item: dict[str, Any], extra: Sequence[str], owners: bool, finished: bool) -> dict[str, Any]:
    status, stage = [t(f"status.{item['status']}")], t(f"stage.{item['stage']}") if item["stage"] else ""
    row = {
        t("column.name"): visible(item["name"], 80),
        **({t("column.stage"): stage} if finished else {t("column.status"): status}),
        t("column.accuracy"): item["eval_accuracy"],
        t("column.runtime"): item["train_runtime"],
        t("column.model"): visible(item["model_name"], 60),
        t("column.data"): short_source(item["dataset_name"]),
        t("column.created"): moment(item["created_at"]),
        **({} if finished else {t("column.stage"): stage}),
        t("column.tags"): visible(", ".join(item["tags"]), 80),
    }
    row |= {visible(name): item["metrics"].get(name) for name in extra}
    if owners:
        row[t("column.owner")] = visible(item["owner"] or ABSENT, 40)
    return row
