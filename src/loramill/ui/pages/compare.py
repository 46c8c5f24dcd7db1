"""Runs side by side: what was set differently, what came out, and whether that is more than luck."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from loramill.ui.charts import draw_lines
from loramill.ui.formats import ABSENT, number
from loramill.ui.parts import empty_place, note_box, page_title, section, table_height
from loramill.ui.places import go
from loramill.ui.plain import visible
from loramill.ui.service_words import in_own_words
from loramill.ui.services import api
from loramill.ui.texts import t

FIRST = ("train_loss", "eval_loss", "eval_accuracy", "eval_f1_macro")


def draw() -> None:
    if st.button(t("action.back_to_list"), icon=":material/arrow_back:", type="tertiary", key="back"):
        go("experiments")
    page_title(t("compare.title"), t("compare.about"))
    ids = [part for part in st.query_params.get("ids", "").split(",") if part]
    if len(ids) < 2:
        empty_place(t("compare.none"), t("compare.none_about"))
        return
    found = api().request("GET", "/experiments/compare", params={"ids": ids})
    verdict(found["verdict"])
    parameters(found)
    metrics(found)
    curves(found)


def verdict(found: dict[str, Any]) -> None:
    section(t("compare.verdict"))
    note_box(in_own_words(found["reason"]), "good" if found["winner"] else "neutral")
    if found["pairs"]:
        rows = [
            {
                t("compare.leader"): visible(pair["leader"]),
                t("compare.other"): visible(pair["other"]),
                t("compare.rows"): pair["rows"],
                t("compare.difference"): number(pair["difference"]),
                t("compare.interval"): f"{number(pair['low'])} … {number(pair['high'])}",
                t("compare.bootstrap_p"): number(pair["bootstrap_p"]),
                t("compare.mcnemar_p"): number(pair["mcnemar_p"]),
                t("compare.adjusted_p"): number(pair["adjusted_p"]),
            }
            for pair in found["pairs"]
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, alt=t("compare.verdict"))


def parameters(found: dict[str, Any]) -> None:
    section(t("compare.parameters"), t("compare.parameters_about"))
    if not found["parameters"]:
        st.caption(t("compare.same_parameters"))
        return
    rows = {key: [_shown(value) for value in values] for key, values in found["parameters"].items()}
    table = _side_by_side(rows, found["ids"], t("column.parameter"))
    st.dataframe(table, hide_index=True, alt=t("compare.parameters"))


def metrics(found: dict[str, Any]) -> None:
    section(t("compare.metrics"))
    rows = {name: [number(value, 5) for value in values] for name, values in found["metrics"].items()}
    st.dataframe(
        _side_by_side(rows, found["ids"], t("column.metric")), hide_index=True, height=table_height(len(rows), 10)
    )


def curves(found: dict[str, Any]) -> None:
    section(t("compare.curves"))
    names = [name for name in FIRST if name in found["curves"]]
    names += [name for name in found["curves"] if name not in FIRST]
    if not names:
        st.caption(t("chart.empty", what=t("compare.curves")))
        return
    chosen = st.multiselect(
        t("compare.which"), names, default=names[:2], format_func=visible, key="curves", placeholder=t("form.none")
    )
    columns = st.columns(2)
    for place, name in enumerate(chosen):
        with columns[place % 2]:
            lines = dict(zip(found["ids"], found["curves"][name], strict=True))
            draw_lines(lines, x=t("axis.step"), y=visible(name), key=f"compare_{name}")


def _side_by_side(rows: dict[str, list[str]], ids: list[str], first: str) -> pd.DataFrame:
    names = [visible(experiment_id, 60) for experiment_id in ids]
    return pd.DataFrame([(visible(key), *values) for key, values in rows.items()], columns=[first, *names])


def _shown(value: Any) -> str:
    return ABSENT if value is None else visible(value)
