"""One run: what was set, how it learned, what came out, its files, and what people note about it."""

from __future__ import annotations

import functools
from typing import Any

import pandas as pd
import streamlit as st
import yaml

from loramill.api_session import ApiError
from loramill.ui.charts import draw_lines
from loramill.ui.failures import attempt, show_failed_job
from loramill.ui.formats import ABSENT, duration, number, score, size, when
from loramill.ui.pages.experiments import confirm_deletion
from loramill.ui.parts import (
    TONES,
    Tile,
    badge,
    draw_tabs,
    empty_place,
    facts,
    heading_with_badges,
    note_box,
    section,
    status_badge,
    table_height,
    tiles,
)
from loramill.ui.places import go
from loramill.ui.plain import visible, visible_lines
from loramill.ui.services import api
from loramill.ui.texts import t

CURVES = {
    "chart.loss": {"train_loss": "metric.train_loss", "eval_loss": "metric.eval_loss"},
    "chart.scores": {
        "eval_accuracy": "metric.accuracy",
        "eval_f1_macro": "metric.f1_macro",
        "eval_auc": "metric.auc",
        "eval_pearson": "metric.pearson",
    },
    "chart.rate": {"train_learning_rate": "metric.learning_rate"},
    "chart.speed": {"train_samples_per_second": "metric.speed"},
}
LOG_LINES = 2000
REPORT_HEIGHT = 900


def draw() -> None:
    experiment_id = st.query_params.get("id")
    if not experiment_id:
        empty_place(t("experiment.none"), t("experiment.none_about"))
        return
    if st.button(t("action.back_to_list"), icon=":material/arrow_back:", type="tertiary", key="back"):
        go("experiments")
    run = api().experiment(experiment_id)
    head(run)
    shows = {"overview": overview, "config": config, "report": report, "files": files, "log": log, "notes": notes}
    draw_tabs({name: functools.partial(show, run) for name, show in shows.items()})


def head(run: dict[str, Any]) -> None:
    left, right = st.columns([3, 2], vertical_alignment="center")
    with left:
        badges = [status_badge(run["status"])]
        if run["stage"]:
            badges.append(badge(t(f"stage.{run['stage']}"), TONES.get(run["stage"], "neutral")))
        badges += [badge(tag) for tag in run["tags"]]
        heading_with_badges(run["name"], badges, f"{run['id']} · {when(run['created_at'])}")
    with right.container(horizontal=True, horizontal_alignment="right"):
        succeeded = run["status"] == "SUCCESS"
        if st.button(t("action.to_models"), icon=":material/deployed_code:", disabled=not succeeded, key="to_models"):
            go("models", model=run["id"])
        if st.button(t("action.delete"), icon=":material/delete:", key="delete"):
            confirm_deletion([run["id"]])
    if run["error_code"]:
        show_failed_job({"code": run["error_code"], "message": run["error_message"]})


def overview(run: dict[str, Any]) -> None:
    metrics = run["metrics"]
    if metrics:
        tiles(
            [
                Tile(t("metric.accuracy"), score(run["eval_accuracy"])),
                Tile(t("metric.f1_macro"), score(metrics.get("eval_f1_macro"))),
                Tile(t("metric.auc"), score(metrics.get("eval_auc"))),
                Tile(t("metric.eval_loss"), score(metrics.get("eval_loss"))),
                Tile(t("metric.ece"), score(metrics.get("eval_ece")), t("metric.ece_about")),
                Tile(t("metric.runtime"), duration(run["train_runtime"])),
            ]
        )
    curves(run)
    left, right = st.columns(2)
    with left:
        section(t("experiment.facts"))
        facts(
            [
                (t("column.model"), run["model_name"]),
                (t("column.data"), run["dataset_name"]),
                (t("column.owner"), run["owner"] or ABSENT),
                (t("experiment.started"), when(run["started_at"])),
                (t("experiment.finished"), when(run["finished_at"])),
                (t("experiment.parent"), run["parent_id"] or ABSENT),
                (t("experiment.sweep"), run["sweep_id"] or ABSENT),
            ]
        )
    if metrics:
        with right:
            all_metrics(metrics)


def all_metrics(metrics: dict[str, float]) -> None:
    section(t("experiment.metrics"))
    table = pd.DataFrame(
        [(visible(name), number(value, 5)) for name, value in sorted(metrics.items())],
        columns=[t("column.metric"), t("column.value")],
    )
    st.dataframe(table, hide_index=True, height=table_height(len(table), 8), alt=t("experiment.metrics"))


def curves(run: dict[str, Any]) -> None:
    """What was logged; nothing was where a run stopped before its first step."""
    try:
        found = api().request("GET", f"/experiments/{run['id']}/curves")["curves"]
    except ApiError as error:
        if error.status != 404:
            raise
        note_box(t("experiment.no_files"), "warn")
        return
    plots = {
        title: {t(label): found[name] for name, label in names.items() if found.get(name)}
        for title, names in CURVES.items()
    }
    drawn = {title: lines for title, lines in plots.items() if lines}
    columns = st.columns(2) if drawn else []
    for place, (title, lines) in enumerate(drawn.items()):
        with columns[place % 2]:
            section(t(title))
            draw_lines(lines, x=t("axis.step"), y=t(f"{title}_unit"), key=f"curve_{place}")


def config(run: dict[str, Any]) -> None:
    tree = api().request("GET", f"/experiments/{run['id']}/config")
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    st.download_button(
        t("action.download_config"), text, file_name="config.yaml", icon=":material/download:", key="download_config"
    )
    st.code(visible_lines(text), language="yaml")


def report(run: dict[str, Any]) -> None:
    try:
        page = api().request("GET", f"/experiments/{run['id']}/report")
    except ApiError as error:
        if error.status != 404:
            raise
        empty_place(t("report.none"), t("report.none_about"))
        return
    st.download_button(
        t("action.download_report"), page, file_name=f"{run['id']}.html", mime="text/html",
        icon=":material/download:", key="download_report",
    )  # fmt: skip
    st.iframe(page, height=REPORT_HEIGHT)


def files(run: dict[str, Any]) -> None:
    try:
        found = api().request("GET", f"/experiments/{run['id']}/artifacts")
    except ApiError as error:
        if error.status != 404:
            raise
        found = []
    if not found:
        empty_place(t("files.none"), t("files.none_about"))
        return
    table = pd.DataFrame(
        [(visible(file["path"]), size(file["bytes"])) for file in found], columns=[t("column.file"), t("column.size")]
    )
    st.dataframe(table, hide_index=True, height=table_height(len(table)), alt=t("tab.files"))
    path = st.selectbox(t("files.choose"), [file["path"] for file in found], format_func=visible, key="file")
    st.download_button(
        t("action.download_file"), lambda: api().artifact(run["id"], path), file_name=path.rpartition("/")[2],
        icon=":material/download:", key="download_file", on_click="ignore",
    )  # fmt: skip


def log(run: dict[str, Any]) -> None:
    try:
        text = api().request("GET", f"/experiments/{run['id']}/logs", params={"tail": LOG_LINES})
    except ApiError as error:
        if error.status != 404:
            raise
        text = ""
    st.code(visible_lines(text) or t("tasks.no_log"), language=None, height=600)


def notes(run: dict[str, Any]) -> None:
    with st.form("notes_form"):
        text = st.text_area(t("notes.text"), run["notes"], height=140, max_chars=10_000)
        tags = st.text_input(t("notes.tags"), ", ".join(run["tags"]), help=t("notes.tags_about"))
        archived = st.toggle(t("notes.archived"), run["archived"])
        if st.form_submit_button(t("action.save"), type="primary"):
            wanted = [tag.strip() for tag in tags.split(",") if tag.strip()]
            change = {
                "notes": text,
                "archived": archived,
                "add_tags": [tag for tag in wanted if tag not in run["tags"]],
                "remove_tags": [tag for tag in run["tags"] if tag not in wanted],
            }
            if attempt(lambda: api().request("PATCH", f"/experiments/{run['id']}", json=change)):
                st.rerun()
