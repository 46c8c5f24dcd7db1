"""Jobs as they go: where each is, how it learns, what it uses, and its log, every two seconds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import pandas as pd
import streamlit as st

from loramill.api_session import ApiError
from loramill.client import Task
from loramill.ui.charts import draw_lines
from loramill.ui.experiment_table import status_column
from loramill.ui.failures import attempt, guarded, show_failed_job
from loramill.ui.formats import ABSENT, duration, moment, number, score, size, when
from loramill.ui.parts import (
    Tile,
    bar,
    empty_place,
    heading_with_badges,
    note_box,
    page_title,
    section,
    status_badge,
    stepper,
    table_height,
    tiles,
)
from loramill.ui.places import go
from loramill.ui.plain import visible, visible_lines
from loramill.ui.services import api, me
from loramill.ui.texts import t

LIVE_SECONDS = 2.0
SHOWN_TASKS = 100
LOG_LINES = 200
LOG_PIXELS = 236
OPENED = "task_opened"
LOSSES = {"train_loss": "metric.train_loss", "eval_loss": "metric.eval_loss"}
SCORES = {
    "eval_accuracy": "metric.accuracy",
    "eval_f1_macro": "metric.f1_macro",
    "eval_pearson": "metric.pearson",
}
State = Literal["done", "now", "next", "failed", "stopped"]


def draw() -> None:
    page_title(t("tasks.title"), t("tasks.about"))
    found = api().tasks(limit=SHOWN_TASKS)
    if not found:
        empty_place(t("tasks.none"), t("tasks.none_about"))
        if st.button(t("nav.train"), type="primary", icon=":material/model_training:", key="to_train"):
            go("train")
        return
    chosen = st.query_params.get("task") or found[0].task_id
    ended = any(task.task_id == chosen and task.has_ended for task in found)
    st.fragment(guarded(show_list), run_every=LIVE_SECONDS)(chosen, ended)
    follow(chosen)


def show_list(followed: str, ended: bool) -> None:
    """The newest tasks; a click on one opens it below.

    Args:
        ended: whether the followed one had when it was drawn; resumed elsewhere, it is drawn anew.
    """
    if st.session_state.pop(OPENED, False):
        st.rerun()
    found = api().tasks(limit=SHOWN_TASKS)
    if ended and any(task.task_id == followed and not task.has_ended for task in found):
        st.rerun()
    st.session_state["tasks_shown"] = [task.task_id for task in found]
    rows = [
        {
            t("column.status"): [t(f"status.{task.status}")],
            t("column.experiment"): visible(task.experiment_id, 120),
            t("column.progress"): round(share_of(task), 2),
            t("column.created"): moment(task.created_at),
            t("column.time"): duration(seconds_of(task)),
            **({t("column.owner"): task.owner or ABSENT} if me().is_admin else {}),
        }
        for task in found
    ]
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height=table_height(len(rows), 6),
        on_select=open_selected,
        selection_mode="single-row",
        key="tasks_table",
        alt=t("tasks.title"),
        column_config={
            t("column.status"): status_column(),
            t("column.progress"): st.column_config.ProgressColumn(
                format="percent", min_value=0, max_value=1, width="small"
            ),
            t("column.created"): st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss"),
        },
    )


def open_selected() -> None:
    chosen = st.session_state["tasks_table"].selection.rows
    shown = st.session_state.get("tasks_shown", [])
    if chosen and chosen[0] < len(shown):
        st.query_params["task"] = shown[chosen[0]]
        st.session_state[OPENED] = True


def follow(task_id: str) -> None:
    """One task, alive until it has ended."""
    try:
        task = api().task(task_id)
    except ApiError as error:
        if error.status != 404:
            raise
        note_box(t("tasks.gone"), "warn")
        return
    live = not task.has_ended
    st.fragment(guarded(show_task), run_every=LIVE_SECONDS if live else None)(task_id, live)


def show_task(task_id: str, live: bool) -> None:
    chosen = st.query_params.get("task") or task_id
    if chosen != task_id:  # another one was opened in the list
        st.rerun()
    task = api().task(task_id)
    if live and task.has_ended:
        st.rerun()  # draws the end, and stops asking
    with st.container(border=True):
        head(task)
        stepper(steps_of(task))
        if task.error:
            show_failed_job(task.error)
        measures(task)
        plots(task)
        log_tail(task)


def head(task: Task) -> None:
    left, right = st.columns([3, 2], vertical_alignment="center")
    with left:
        badges = [status_badge(task.status)]
        note = t("tasks.since", when=when(task.created_at), attempt=max(task.attempt, 1))
        heading_with_badges(task.experiment_id, badges, note)
    with right.container(horizontal=True, horizontal_alignment="right"):
        if (
            not task.has_ended
            and st.button(
                t("action.cancel"), icon=":material/stop_circle:", disabled=task.cancel_requested, key="cancel"
            )
            and attempt(lambda: api().cancel(task.task_id))
        ):
            st.rerun()
        if (
            task.status in ("FAILURE", "REVOKED")
            and st.button(t("action.resume"), icon=":material/resume:", type="primary", key="resume")
            and attempt(lambda: api().resume(task.task_id))
        ):
            st.rerun()
        if st.button(t("action.open_experiment"), icon=":material/science:", key="open_experiment"):
            go("experiment", id=task.experiment_id)


def steps_of(task: Task) -> list[tuple[str, State]]:
    """Submitted, queued, running, ended: each done, going on, or to come."""
    names = [t("step.submit"), t("step.queued"), t("step.running")]
    ends: dict[str, tuple[str, State]] = {
        "SUCCESS": (t("step.finished"), "done"),
        "FAILURE": (t("step.has_failed"), "failed"),
        "REVOKED": (t("step.cancelled"), "stopped"),
    }
    if task.status in ends:
        ran: State = "done" if task.started_at else "next"
        return [(names[0], "done"), (names[1], "done"), (names[2], ran), ends[task.status]]
    waiting = task.status == "PENDING"
    states: list[State] = ["done", "now" if waiting else "done", "next" if waiting else "now", "next"]
    return list(zip([*names, t("step.finished")], states, strict=True))


def measures(task: Task) -> None:
    """How far it is, and the newest numbers."""
    progress = task.progress or {}
    share = share_of(task)
    label = t("tasks.steps", step=number(progress.get("step") or 0), total=number(progress.get("total_steps") or 0))
    if task.progress and not task.has_ended:
        st.html(bar(share, f"{share * 100:.0f} % · {label}"))
    if task.status == "PENDING":
        st.caption(t("tasks.waiting"))
    elif task.result:
        tiles(result_tiles(task.result))
    elif not task.has_ended or progress:
        tiles(
            [
                Tile(t("tasks.elapsed"), duration(seconds_of(task))),
                Tile(t("tasks.left"), duration(seconds_left(task)), t("tasks.left_about")),
                Tile(t("metric.loss"), score(progress.get("loss"))),
                Tile(t("metric.epoch"), number(progress.get("epoch"), 2)),
                Tile(t("metric.learning_rate"), number(progress.get("learning_rate"))),
                Tile(t("metric.speed"), number(progress.get("samples_per_second"), 1), t("unit.samples_per_second")),
            ]
        )


def result_tiles(result: dict[str, Any]) -> list[Tile]:
    evaluated, trained = result.get("eval", {}), result.get("train", {})
    return [
        Tile(t("metric.accuracy"), score(evaluated.get("accuracy"))),
        Tile(t("metric.f1_macro"), score(evaluated.get("f1_macro"))),
        Tile(t("metric.eval_loss"), score(evaluated.get("loss"))),
        Tile(t("metric.train_loss"), score(trained.get("loss"))),
        Tile(t("metric.runtime"), duration(trained.get("runtime"))),
        Tile(t("metric.speed"), number(trained.get("samples_per_second"), 1), t("unit.samples_per_second")),
    ]


def plots(task: Task) -> None:
    """Side by side: the loss, and what else there is by now."""
    if not task.started_at:
        return
    found = api().request("GET", f"/experiments/{task.experiment_id}/curves")
    curves, resources = found["curves"], found["resources"]
    scores = {t(label): curves[name] for name, label in SCORES.items() if curves.get(name)}
    drawn: list[Callable[[], None]] = [lambda: plot_loss(curves)]
    drawn += [lambda: plot_scores(scores)] if scores else []
    drawn += [lambda: plot_resources(resources)] if resources.get("cpu_percent") else []
    for column, draw_one in zip(st.columns(len(drawn)), drawn, strict=True):
        with column:
            draw_one()


def plot_loss(curves: dict[str, Any]) -> None:
    section(t("metric.loss"))
    lines = {t(label): curves.get(name, []) for name, label in LOSSES.items()}
    draw_lines(lines, x=t("axis.step"), y=t("chart.loss_unit"), key="loss_chart")


def plot_scores(scores: dict[str, Any]) -> None:
    section(t("metric.evaluation"))
    draw_lines(scores, x=t("axis.step"), y=t("metric.score"), key="metric_chart")


def plot_resources(resources: dict[str, Any]) -> None:
    section(t("tasks.resources"), latest_resources(resources))
    shares = {t("metric.cpu"): resources["cpu_percent"], t("metric.gpu"): resources.get("gpu_percent", [])}
    draw_lines(shares, x=t("axis.seconds"), y=t("axis.cpu_percent"), key="cpu_chart", from_zero=True)


def latest_resources(resources: dict[str, Any]) -> str:
    memory = resources.get("rss_bytes") or []
    gpu = resources.get("gpu_memory_bytes") or []
    parts = [t("tasks.memory", size=size(memory[-1][1]))] if memory else []
    parts += [t("tasks.gpu_memory", size=size(gpu[-1][1]))] if gpu else []
    return " · ".join(parts)


def log_tail(task: Task) -> None:
    if task.status == "PENDING":
        return
    with st.expander(
        t("tasks.log"), expanded=not task.has_ended or task.status == "FAILURE", icon=":material/terminal:"
    ):
        log = api().request("GET", f"/experiments/{task.experiment_id}/logs", params={"tail": LOG_LINES})
        with st.container(height=LOG_PIXELS, border=False, autoscroll=True, key="log_tail"):
            st.code(visible_lines(log) or t("tasks.no_log"), language=None)


def share_of(task: Task) -> float:
    if task.status == "SUCCESS":
        return 1.0
    progress = task.progress or {}
    total = progress.get("total_steps") or 0
    return min(1.0, progress.get("step", 0) / total) if total else 0.0


def seconds_of(task: Task) -> float | None:
    """Since it started, or how long it took."""
    started = moment(task.started_at)
    if started is None:
        return None
    ended = moment(task.finished_at) if task.has_ended else None
    return max(0.0, ((ended or datetime.now(UTC)) - started).total_seconds())


def seconds_left(task: Task) -> float | None:
    """By the mean time of its steps, in which no queue, start or pause counts."""
    progress = task.progress or {}
    step, total, trained = (progress.get(name) for name in ("step", "total_steps", "train_seconds"))
    return float(trained / step * (total - step)) if step and total and trained else None
