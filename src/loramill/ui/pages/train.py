"""Submitting a run: presets, every key of the config, a check while one types, and what it will take."""

from __future__ import annotations

import secrets
from typing import Any

import streamlit as st
import yaml

from loramill.ui.config_form import (
    ESSENTIAL,
    FIELDS,
    SECTIONS,
    Problems,
    as_tree,
    defaults,
    draw_field,
    fill,
    flatten,
    lost_values,
    read_values,
    state_key,
)
from loramill.ui.failures import attempt
from loramill.ui.formats import duration, number, size
from loramill.ui.parts import Tile, Tone, note_box, page_title, section, tiles
from loramill.ui.places import go
from loramill.ui.plain import visible
from loramill.ui.services import api, me
from loramill.ui.texts import t

SAMPLES = ["sample:movie_reviews", "sample:chinese_reviews"]
FIRST_PRESET = "quickstart"
SUBMIT_KEY = "submit_key"
PLAN = "plan"
PLAN_SECONDS = 150.0


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


def start_form(presets: dict[str, Any]) -> None:
    """The form as it was left, or a preset that works without a network; data named in the address wins."""
    first = presets.get(FIRST_PRESET) or next(iter(presets.values()), None)
    form = me().draft or (flatten(first["config"]) if first else defaults())
    fill(lost_values(form))
    if source := st.query_params.get("data"):
        fill({"data.dataset_name": source})
        remember({**form, "data.dataset_name": source})  # a click elsewhere may end this run right here
        del st.query_params["data"]


def remember(values: dict[str, Any]) -> None:
    """So that the form is as it was after a reload, and after a visit to another page."""
    if values != me().draft:
        st.session_state.pop(SUBMIT_KEY, None)
        st.session_state.pop(PLAN, None)
    me().draft = values


def choose_preset(presets: dict[str, Any]) -> None:
    def chosen() -> None:
        name = st.session_state.get("preset")
        if name in presets:
            fill(flatten(presets[name]["config"]))

    st.pills(
        t("train.preset"),
        list(presets),
        format_func=lambda name: name.replace("_", " "),
        key="preset",
        on_change=chosen,
        help="  \n".join(f"`{name}`: {preset['summary']}" for name, preset in presets.items()),
    )


def found_problems() -> Problems:
    """Dotted key -> what is wrong with it, for the form as it stands."""
    checked = api().request("POST", "/config/check", json={"config": as_tree(read_values())})
    return {problem["key"]: _sentence(problem) for problem in checked["problems"]}


def _sentence(problem: dict[str, Any]) -> str:
    hint = problem.get("suggestion")
    return f"{problem['message']} ({t('train.did_you_mean', key=hint)})" if hint else str(problem["message"])


def essentials(presets: dict[str, Any], problems: Problems) -> None:
    models = list(dict.fromkeys(preset["config"]["model"]["name"] for preset in presets.values()))
    sources = [*SAMPLES, *(found["dataset_id"] for found in own_datasets())]
    suggestions = {"data.dataset_name": sources, "model.name": models}
    with st.container(border=True):
        columns = st.columns(4)
        for place, key in enumerate(ESSENTIAL):
            with columns[place % 4]:
                draw_field(key, problems, suggestions.get(key))
        note = data_note(st.session_state.get(state_key("data.dataset_name")))
        if note:
            note_box(*note)


@st.cache_data(ttl=5, show_spinner=False)
def _datasets_of(user_id: str, _client: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _client.datasets(limit=200)["items"]
    return found


def own_datasets() -> list[dict[str, Any]]:
    return _datasets_of(me().user_id, me().client)


def data_note(source: str | None) -> tuple[str, Tone] | None:
    """What the validation of an uploaded data set found, where the form names one."""
    found = next((item for item in own_datasets() if source and source.startswith(item["dataset_id"])), None)
    if found is None:
        return None
    findings = sum(found["newest"]["report"]["finding_counts"].values())
    rows = number(found["newest"]["rows"])
    note = t("train.data_note", rows=rows, findings=number(findings))
    return f"{visible(found['name'], 80)}: {note}", "warn" if findings else "good"


def experts(problems: Problems) -> None:
    section(t("train.expert"), t("train.expert_about"))
    for name in SECTIONS:
        keys = [key for key in FIELDS if key.startswith(f"{name}.") and key not in ESSENTIAL]
        wrong = sum(key in problems for key in keys)
        label = t(f"section.{name}") + (f" · {t('train.problems', count=wrong)}" if wrong else "")
        with st.expander(label, expanded=bool(wrong)):
            columns = st.columns(4)
            for place, key in enumerate(keys):
                with columns[place % 4]:
                    draw_field(key, problems)


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
        note_box(f"{t('train.plan_failed')} {reply['problem']['message']}", "bad")
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
    """Go on to the task. The same form submitted twice, after a lost answer, is one job."""
    key = st.session_state.setdefault(SUBMIT_KEY, secrets.token_hex(16))
    task = api().train(tree, idempotency_key=key)
    st.session_state.pop(SUBMIT_KEY, None)
    go("tasks", task=task.task_id)
