"""Sweeps: many trials side by side, which parameters they tried, and which did best."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st

from loramill.client import ENDED
from loramill.ui.charts import draw_parallel
from loramill.ui.config_form import FIELDS, FIRST_PRESET, as_tree, flatten, name_key
from loramill.ui.experiment_table import key_for_rows, status_column
from loramill.ui.failures import attempt, guarded, show_failed_job
from loramill.ui.formats import ABSENT, duration, moment, number, score, when
from loramill.ui.parts import (
    Tile,
    choose_by_address,
    empty_place,
    heading_with_badges,
    note_box,
    page_title,
    section,
    status_badge,
    table_height,
    tiles,
)
from loramill.ui.places import go
from loramill.ui.plain import visible
from loramill.ui.services import api, me
from loramill.ui.submit_once import submit_once
from loramill.ui.texts import has_text, t

LIVE_SECONDS = 2.0
DIMENSIONS = 3
SAMPLERS = ("grid", "random", "tpe")
SWEPT = [key for key in FIELDS if key.startswith(("lora.", "training."))]
FIRST = ("lora.r", "training.learning_rate", None)


def draw() -> None:
    page_title(t("sweeps.title"), t("sweeps.about"))
    found = api().request("GET", "/sweeps", params={"limit": 100})["items"]
    with st.expander(t("sweeps.new"), expanded=not found, icon=":material/add:"):
        new_sweep()
    if not found:
        empty_place(t("sweeps.none"), t("sweeps.none_about"))
        return
    chosen_id = choose_by_address(t("sweeps.choose"), {item["sweep_id"]: name_sweep(item) for item in found}, "sweep")
    chosen = next(item for item in found if item["sweep_id"] == chosen_id)
    live = chosen["status"] not in ENDED
    st.fragment(guarded(show_sweep), run_every=LIVE_SECONDS if live else None)(chosen["sweep_id"], live)


def new_sweep() -> None:
    presets = {preset["name"]: preset["config"] for preset in api().request("GET", "/config/presets")}
    configs = {name: flatten(tree) for name, tree in presets.items()}
    if me().draft:
        configs = {t("sweeps.form"): me().draft, **configs}
    elif FIRST_PRESET in configs:
        configs = {FIRST_PRESET: configs[FIRST_PRESET], **configs}
    with st.form("sweep_form", border=False):
        columns = st.columns([1.4, 1, 1, 1], vertical_alignment="bottom")
        base = columns[0].selectbox(t("sweeps.config"), list(configs), key="sweep_base", help=t("sweeps.base"))
        sampler = columns[1].selectbox(
            t("sweeps.sampler"), SAMPLERS, key="sampler", format_func=lambda name: t(f"sampler.{name}")
        )
        trials = columns[2].number_input(
            t("sweeps.trials"), 1, 1000, None, 1, key="trials", placeholder=t("sweeps.all")
        )
        halving = columns[3].toggle(t("sweeps.halving"), key="halving")
        space = dimensions()
        pressed = st.form_submit_button(t("action.start_sweep"), type="primary", icon=":material/play_arrow:")
    if pressed and not space:
        note_box(t("sweeps.no_space"), "warn")
    elif pressed:
        body = {"config": as_tree(configs[base]), "space": space, "sampler": sampler, "trials": trials}
        attempt(lambda: submit({**body, "halving": {} if halving else None}))


def dimensions() -> dict[str, Any]:
    """Key -> values, or a range, for the parameters that were named."""
    space: dict[str, Any] = {}
    columns = st.columns(DIMENSIONS)
    for place, column in enumerate(columns):
        first = FIRST[place]
        with column.container(border=True):
            key = st.selectbox(
                t("sweeps.key", place=place + 1), SWEPT, index=SWEPT.index(first) if first else None,
                format_func=lambda key: f"{name_key(key)} ({key})", placeholder=t("form.none"), key=f"key_{place}",
            )  # fmt: skip
            values = st.text_input(t("sweeps.values"), placeholder=t("sweeps.values_about"), key=f"values_{place}")
        if key and values.strip():
            space[key] = values.strip() if ".." in values else [_value(part) for part in values.split(",")]
    return space


def _value(text: str) -> Any:
    """A number where it is one, yes or no, or a word."""
    word = text.strip()
    if word in ("true", "false"):
        return word == "true"
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def submit(body: dict[str, Any]) -> None:
    def send(key: str) -> dict[str, Any]:
        made: dict[str, Any] = api().request("POST", "/sweeps", json=body, headers={"Idempotency-Key": key})
        return made

    made = submit_once("sweep", body, send)
    st.query_params["sweep"] = made["sweep_id"]
    st.rerun()


def name_sweep(sweep: dict[str, Any]) -> str:
    return f"{visible(sweep['name'], 80)} · {t('status.' + sweep['status'])} · {when(sweep['created_at'])}"


def name_metric(metric: str) -> str:
    text = f"sort.eval_{metric}"
    return t(text) if has_text(text) else visible(metric, 40)


def show_sweep(sweep_id: str, live: bool) -> None:
    sweep = api().request("GET", f"/sweeps/{sweep_id}")
    if live and sweep["status"] in ENDED:
        st.rerun()
    trials = api().request("GET", f"/sweeps/{sweep_id}/trials")
    with st.container(border=True):
        head(sweep)
        if sweep["error"]:
            show_failed_job(sweep["error"])
        totals(sweep, len(trials))
        picture(sweep, trials)
        leaderboard(sweep, trials)


def head(sweep: dict[str, Any]) -> None:
    left, right = st.columns([3, 2], vertical_alignment="center")
    with left:
        heading_with_badges(
            sweep["name"], [status_badge(sweep["status"])], f"{sweep['sweep_id']} · {when(sweep['created_at'])}"
        )
    with right.container(horizontal=True, horizontal_alignment="right"):
        path = f"/sweeps/{sweep['sweep_id']}"
        going = sweep["status"] not in ENDED
        if (
            going
            and st.button(
                t("action.cancel"),
                icon=":material/stop_circle:",
                disabled=sweep["cancel_requested"],
                key="cancel_sweep",
            )
            and attempt(lambda: api().request("POST", f"{path}/cancel"))
        ):
            st.rerun()
        stopped = sweep["status"] in ("FAILURE", "REVOKED")
        if (
            stopped
            and st.button(t("action.resume"), icon=":material/resume:", type="primary", key="resume_sweep")
            and attempt(lambda: api().request("POST", f"{path}/resume"))
        ):
            st.rerun()
        if sweep["status"] == "SUCCESS":
            st.download_button(
                t("action.download_report"), lambda: api().request("GET", f"{path}/report"), mime="text/html",
                file_name=f"{sweep['sweep_id']}.html", icon=":material/download:", key="sweep_report",
                on_click="ignore",
            )  # fmt: skip


def totals(sweep: dict[str, Any], planned: int) -> None:
    counts, best = sweep["trials"], sweep["best"]
    started, ended = moment(sweep["started_at"]), moment(sweep["finished_at"])
    elapsed = ((ended or datetime.now(UTC)) - started).total_seconds() if started else None
    tiles(
        [
            Tile(t("sweeps.best", metric=name_metric(sweep["metric"])), score(best["score"]) if best else ABSENT),
            Tile(t("sweeps.done"), f"{counts.get('SUCCESS', 0)} / {planned}"),
            Tile(t("sweeps.pruned"), number(counts.get("PRUNED", 0) + counts.get("REVOKED", 0))),
            Tile(t("sweeps.failed"), number(counts.get("FAILURE", 0))),
            Tile(t("sweeps.elapsed"), duration(elapsed)),
        ]
    )


def picture(sweep: dict[str, Any], trials: list[dict[str, Any]]) -> None:
    section(t("sweeps.parallel"), t("sweeps.parallel_about"))
    name = t("sweeps.score")
    scored = [trial for trial in trials if trial["score"] is not None]
    if len(scored) < 2:
        st.caption(t("sweeps.few"))
        return
    axes = list(dict.fromkeys(name_key(key) for trial in scored for key in trial["overrides"]))
    lines = [{"trial": trial["experiment_id"], **_named(trial), name: trial["score"]} for trial in scored]
    draw_parallel(lines, [*axes, name], name, key="parallel")


def _named(trial: dict[str, Any]) -> dict[str, Any]:
    """What a trial tried, by the names of the form."""
    return {name_key(key): value for key, value in trial["overrides"].items()}


def leaderboard(sweep: dict[str, Any], trials: list[dict[str, Any]]) -> None:
    section(t("sweeps.leaderboard"))
    ranked = sorted(trials, key=lambda trial: -(trial["score"] if trial["score"] is not None else float("-inf")))
    table = [
        {
            "#": place + 1,
            t("column.trial"): visible(trial["experiment_id"], 100),
            t("sweeps.score"): trial["score"],
            t("column.status"): [t(f"status.{trial['status']}")],
            **{key: visible(value) for key, value in _named(trial).items()},
            t("column.runtime"): duration(trial["train_runtime"]),
        }
        for place, trial in enumerate(ranked)
    ]
    event = st.dataframe(
        pd.DataFrame(table),
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        height=table_height(len(table), 10),
        placeholder="",
        alt=t("sweeps.leaderboard"),
        key=key_for_rows("leaderboard", [trial["experiment_id"] for trial in ranked]),
        column_config={
            t("column.status"): status_column(),
            t("sweeps.score"): st.column_config.NumberColumn(format="%.4f"),
        },
    )
    ids = [ranked[place]["experiment_id"] for place in event["selection"]["rows"] if place < len(ranked)]
    with st.container(horizontal=True):
        if st.button(t("action.open"), icon=":material/open_in_full:", disabled=len(ids) != 1, key="open_trial"):
            go("experiment", id=ids[0])
        if st.button(
            t("action.compare"), icon=":material/compare_arrows:", disabled=len(ids) < 2, key="compare_trials"
        ):
            go("compare", ids=",".join(ids))
