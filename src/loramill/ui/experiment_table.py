"""Experiments as a table, as the lists of several pages show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from loramill.ui.formats import ABSENT, moment
from loramill.ui.plain import visible
from loramill.ui.texts import t

MAX_HEIGHT = 560


def draw_table(
    items: Sequence[dict[str, Any]], *, key: str, extra: Sequence[str] = (), owners: bool = False
) -> list[str]:
    """The experiments in order; returns the ids of those that are ticked.

    Args:
        extra: metrics that get a column of their own.
        owners: whether a column says whose they are.
    """
    frame = pd.DataFrame([_row(item, extra, owners) for item in items])
    number = st.column_config.NumberColumn(format="%.4f", width="small")
    columns: dict[str, Any] = {
        t("column.accuracy"): number,
        t("column.runtime"): st.column_config.NumberColumn(format="%.1f s", width=110),
        t("column.created"): st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", width="medium"),
        **{visible(name): number for name in extra},
    }
    event = st.dataframe(
        frame,
        hide_index=True,
        height=min(38 + 35 * max(len(frame), 1), MAX_HEIGHT),
        on_select="rerun",
        selection_mode="multi-row",
        key=key,
        placeholder="",
        column_config=columns,
        alt=t("experiments.title"),
    )
    return [items[place]["id"] for place in event["selection"]["rows"] if place < len(items)]


def _row(item: dict[str, Any], extra: Sequence[str], owners: bool) -> dict[str, Any]:
    row = {
        t("column.name"): visible(item["name"], 80),
        t("column.status"): t(f"status.{item['status']}"),
        t("column.accuracy"): item["eval_accuracy"],
        t("column.runtime"): item["train_runtime"],
        t("column.model"): visible(item["model_name"], 60),
        t("column.data"): visible(item["dataset_name"], 60),
        t("column.created"): moment(item["created_at"]),
        t("column.stage"): t(f"stage.{item['stage']}") if item["stage"] else "",
        t("column.tags"): visible(", ".join(item["tags"]), 80),
    }
    row |= {visible(name): item["metrics"].get(name) for name in extra}
    if owners:
        row[t("column.owner")] = visible(item["owner"] or ABSENT, 40)
    return row
