"""Submitting a run: presets, every key of the config, a check while one types, and what it will take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st
import yaml

from loramill.ui.config_form import (
    ESSENTIAL,
    FIELDS,
    FIRST_PRESET,
    SECTIONS,
    Problems,
    as_tree,
    defaults,
    draw_field,
    fill,
    flatten,
    is_emptied,
    is_switch,
    lost_values,
    read_values,
    show_again,
    state_key,
)
from loramill.ui.failures import attempt, show_failed_job
from loramill.ui.formats import duration, number, size
from loramill.ui.parts import Tile, Tone, note_box, page_title, section, tiles
from loramill.ui.places import go
from loramill.ui.plain import visible
from loramill.ui.service_words import in_own_words
from loramill.ui.services import api, me
from loramill.ui.submit_once import submit_once
from loramill.ui.texts import has_text, t

SAMPLES = ["sample:movie_reviews", "sample:chinese_reviews"]
PLAN = "plan"
SHOWN = "form_shown"
"""Whether the page was drawn to its end since its fields were filled."""

PLAN_SECONDS = 150.0
PER_ROW = 4


def draw() -> None:
    page_title(t("train.title"), t("train.about"))
    presets = {preset["name"]: preset for preset in api().request("GET", "/config/presets")}
    start_form(presets)
    choose_preset(presets)
    problems = found_problems()
    essentials(presets, problems)
    experts(problems)
    values = read_values()
    remember(values)
    tree = as_tree(values)
    submit_row(tree, problems)
    st.session_state[SHOWN] = True


def start_form(presets: dict[str, Any]) -> None:
    """The form as it was left, or a preset that works without a network; data named in the address wins."""
    first = presets.get(FIRST_PRESET) or next(iter(presets.values()), None)
    form = me().draft or (flatten(first["config"]) if first else defaults())
    if lost := lost_values(form):
        fill(lost)
        st.session_state[SHOWN] = False
    if not st.session_state.get(SHOWN):
        show_again()
    if source := st.query_params.get("data"):
        fill({"data.dataset_name": source})
        remember({**form, "data.dataset_name": source})  # a click elsewhere may end this run right here
        del st.query_params["data"]


def remember(values: dict[str, Any]) -> None:
    """So that the form is as it was after a reload, and after a visit to another page."""
    if values != me().draft:
        st.session_state.pop(PLAN, None)
    me().draft = values


def choose_preset(presets: dict[str, Any]) -> None:
    """The one that the form is equal to is marked; another one fills it anew."""
    forms = {name: flatten(preset["config"]) for name, preset in presets.items()}

    def chosen() -> None:
        name = st.session_state.get("preset")
        if name in forms:
            fill(forms[name])

    now = read_values()
    st.session_state["preset"] = next((name for name, form in forms.items() if form == now), None)
    st.pills(
        t("train.preset"),
        list(presets),
        format_func=_spaced,
        key="preset",
        on_change=chosen,
        help="  \n".join(f"**{_spaced(name)}**: {_summary(preset)}" for name, preset in presets.items()),
    )


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _summary(preset: dict[str, Any]) -> str:
    """The file's own first sentence, where we have none in the reader's language."""
    text = f"preset.{preset['name']}"
    return t(text) if has_text(text) else str(preset["summary"])


def found_problems() -> Problems:
    """Dotted key -> what is wrong with it, for the form as it stands."""
    values = read_values()
    checked = api().request("POST", "/config/check", json={"config": as_tree(values)})
    return {
        problem["key"]: t("form.needed") if is_emptied(problem["key"], values) else _sentence(problem)
        for problem in checked["problems"]
    }


def _sentence(problem: dict[str, Any]) -> str:
    message, hint = in_own_words(str(problem["message"])), problem.get("suggestion")
    return f"{message} ({t('train.did_you_mean', key=hint)})" if hint else message


def essentials(presets: dict[str, Any], problems: Problems) -> None:
    models = list(dict.fromkeys(preset["config"]["model"]["name"] for preset in presets.values()))
    sources = [*SAMPLES, *(found["dataset_id"] for found in own_datasets())]
    suggestions = {"data.dataset_name": sources, "model.name": models}
    with st.container(border=True):
        in_rows(ESSENTIAL, problems, suggestions)
        note = data_note(st.session_state.get(state_key("data.dataset_name")))
        if note:
            note_box(*note)


def in_rows(keys: Sequence[str], problems: Problems, suggestions: dict[str, list[str]]) -> None:
    """Four fields a row, so that the next row stands straight whatever is said below a field."""
    for start in range(0, len(keys), PER_ROW):
        for column, key in zip(st.columns(PER_ROW), keys[start : start + PER_ROW], strict=False):
            with column:
                draw_field(key, problems, suggestions.get(key))


@st.cache_data(ttl=5, show_spinner=False)
def _datasets_of(user_id: str, _client: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _client.datasets(limit=200)["items"]
    return found


@st.cache_data(ttl=5, show_spinner=False)
def _versions_of(user_id: str, dataset_id: str, _client: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _client.dataset_versions(dataset_id)
    return found


def own_datasets() -> list[dict[str, Any]]:
    return _datasets_of(me().user_id, me().client)


def data_note(source: str | None) -> tuple[str, Tone] | None:
    """What the validation of an uploaded data set found, where the form names one."""
    found = next((item for item in own_datasets() if source and source.startswith(item["dataset_id"])), None)
    if found is None or source is None:
        return None
    version, named = found["newest"], source.rpartition("@")[2]
    if "@" in source and named != str(version["version"]):
        older = _versions_of(me().user_id, found["dataset_id"], me().client)
        version = next((item for item in older if str(item["version"]) == named), version)
    findings, rows = sum(version["report"]["finding_counts"].values()), number(version["rows"])
    note = t("train.data_note", rows=rows, findings=number(findings))
    return f"{visible(found['name'], 80)}: {note}", "warn" if findings else "good"


def experts(problems: Problems) -> None:
    section(t("train.expert"), t("train.expert_about"))
    for name in SECTIONS:
        keys = [key for key in FIELDS if key.startswith(f"{name}.") and key not in ESSENTIAL]
        wrong = sum(key in problems for key in keys)
        label = t(f"section.{name}") + (f" · {t('train.problems', count=wrong)}" if wrong else "")
        with st.expander(label, expanded=bool(wrong)):
            in_rows([key for key in keys if not is_switch(key)], problems, {})
            in_rows([key for key in keys if is_switch(key)], problems, {})


def submit_row(tree: dict[str, Any], problems: Problems) -> None:
    shown = {key: text for key, text in problems.items() if key not in FIELDS}
    for key, text in shown.items():
        note_box(f"{key}: {text}", "bad")
    buttons = st.container(horizontal=True, vertical_alignment="center")
    submitted = buttons.button(
        t("action.submit"), type="primary", icon=":material/play_arrow:", disabled=bool(problems), key="submit"
    )
    planned = buttons.button(
        t("action.estimate"),
        icon=":material/timer:",
        disabled=bool(problems),
        key="estimate",
        help=t("train.plan_about"),
    )
    buttons.download_button(
        t("action.download_config"),
        yaml.safe_dump(tree, sort_keys=False, allow_unicode=True),
        file_name="config.yaml",
        icon=":material/download:",
        key="download_config",
    )
    buttons.caption(t("train.problems", count=len(problems)) if problems else t("train.no_problems"))
    if planned:
        attempt(lambda: make_plan(tree))
    show_plan()
    if submitted:
        attempt(lambda: submit(tree))


def make_plan(tree: dict[str, Any]) -> None:
    with st.spinner(t("train.planning")):
        st.session_state[PLAN] = api().request("POST", "/config/plan", json={"config": tree}, timeout=PLAN_SECONDS)


def show_plan() -> None:
    reply = st.session_state.get(PLAN)
    if reply is None:
        return
    if reply["problem"]:
        note_box(t("train.plan_failed"), "warn")
        show_failed_job(reply["problem"])
        return
    plan = reply["plan"]
    tiles(
        [
            Tile(t("plan.time"), duration(plan["seconds"]), t("plan.training", time=duration(plan["train_seconds"]))),
            Tile(t("plan.memory"), size(plan["memory_bytes"]), t("plan.free", size=size(plan["memory_free_bytes"]))),
            Tile(t("plan.disk"), size(plan["disk_bytes"])),
            Tile(t("plan.rows"), number(plan["train_rows"]), t("plan.eval_rows", rows=number(plan["eval_rows"]))),
            Tile(t("plan.steps"), number(plan["steps"]), plan["device"]),
            Tile(t("plan.parameters"), number(plan["trainable_parameters"])),
        ]
    )
    if not plan["fits"]:
        note_box(t("plan.too_large"), "warn")


def submit(tree: dict[str, Any]) -> None:
    """Go on to the task."""
    task = submit_once("training", tree, lambda key: api().train(tree, idempotency_key=key))
    go("tasks", task=task.task_id)
