"""The registry: every run that succeeded is a model. Find one, promote it, and try several on the same text."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import streamlit as st
from markupsafe import Markup

from loramill.errors import LoramillError
from loramill.ui.experiment_table import draw_table
from loramill.ui.failures import attempt, guarded, show_problem
from loramill.ui.formats import ABSENT, number, when
from loramill.ui.parts import TONES, badge, bar, empty_place, facts, heading_with_badges, page_title, section
from loramill.ui.places import go
from loramill.ui.plain import isolated, visible
from loramill.ui.service_words import in_own_words
from loramill.ui.services import api, ask_model, me
from loramill.ui.texts import t

STAGES = ("production", "staging", "archived")
SORTS = ("created_at", "eval_accuracy", "name")
SHOWN = 100
MAX_TRIED = 4
MAX_TEXT = 5000


def draw() -> None:
    page_title(t("models.title"), t("models.about"))
    found = search()
    if not found:
        return
    chosen = draw_table(found, key="models_table", owners=me().is_admin, finished=True, most=8)
    asked = st.query_params.get("model", "")
    focus = chosen[0] if chosen else asked or found[0]["id"]
    if chosen:
        st.query_params["model"] = focus
    names = list(dict.fromkeys([*(item["id"] for item in found), focus]))
    left, right = st.columns([1, 1.25])
    with left.container(border=True):
        shown = next((item for item in found if item["id"] == focus), None)
        guarded(lambda: stage_of(shown or api().experiment(focus)))()
    with right.container(border=True):
        guarded(try_text)(names, chosen[:MAX_TRIED] or [focus])


def search() -> list[dict[str, Any]]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        stage = st.selectbox(
            t("filter.stage"), STAGES, index=None, format_func=lambda name: t(f"stage.{name}"),
            key="stage", bind="query-params", placeholder=t("filter.any"), width=200,
        )  # fmt: skip
        name = st.text_input(t("filter.name"), key="name", bind="query-params", icon=":material/search:", width=320)
        order = st.selectbox(
            t("sort.by"), SORTS, key="sort", bind="query-params", format_func=lambda key: t(f"sort.{key}"), width=220
        )
    query = {"stage": stage, "name": name, "sort_by": order, "owner": None if me().is_admin else "me", "limit": SHOWN}
    given = {key: value for key, value in query.items() if value not in (None, "")}
    found: list[dict[str, Any]] = api().request("GET", "/models", params=given)["items"]
    if not found and (stage or name):
        empty_place(t("experiments.no_match"), t("experiments.no_match_about"))
    elif not found:
        empty_place(t("models.none"), t("models.none_about"))
        if st.button(t("nav.train"), type="primary", icon=":material/model_training:", key="to_train"):
            go("train")
    return found


def stage_of(model: dict[str, Any]) -> None:
    """Where it stands, who moved it there and why, and moving it on."""
    stage = model["stage"]
    badges = [badge(t(f"stage.{stage}"), TONES.get(stage, "neutral")) if stage else badge(t("stage.none"))]
    heading_with_badges(model["name"], badges, model["id"])
    with st.form(f"stage_form_{model['id']}", border=False):
        choices = [*STAGES, "none"]
        wanted = st.segmented_control(
            t("models.stage"),
            choices,
            default=stage or "none",
            format_func=lambda name: t(f"stage.{name}"),
            required=True,
        )
        reason = st.text_input(t("models.reason"), placeholder=t("models.reason_about"), max_chars=500)
        pressed = st.form_submit_button(t("action.move"), type="primary", icon=":material/move_up:")
    if pressed:
        body = {"stage": None if wanted == "none" else wanted, "reason": reason}
        if attempt(lambda: api().request("POST", f"/models/{model['id']}/stage", json=body)):
            st.rerun()
    history(model["id"])
    if st.button(t("action.open_experiment"), icon=":material/science:", key="open_experiment"):
        go("experiment", id=model["id"])


def history(model_id: str) -> None:
    moves = api().request("GET", f"/models/{model_id}/history")
    if not moves:
        st.caption(t("models.no_history"))
        return
    facts(
        (
            f"{_place(move, 'old_value')} → {_place(move, 'new_value')}",
            " · ".join(part for part in (move["reason"], move["by"], when(move["at"])) if part),
        )
        for move in moves
    )


def _place(move: dict[str, Any], which: str) -> str:
    """A stage by its name here; an alias, which a stranger named, as it is."""
    value = move[which]
    return t(f"stage.{value or 'none'}") if move["kind"] == "stage" else visible(value or ABSENT)


def try_text(names: list[str], chosen: list[str]) -> None:
    section(t("models.try"), t("models.try_about"))
    with st.form("try_form", border=False):
        models = st.multiselect(
            t("models.which"), names, default=chosen, format_func=lambda name: visible(name, 100),
            max_selections=MAX_TRIED, placeholder=t("form.none"), key=f"try_models_{'|'.join(chosen)}",
        )  # fmt: skip
        text = st.text_area(t("models.text"), placeholder=t("models.text_about"), max_chars=MAX_TEXT, key="try_text")
        pressed = st.form_submit_button(t("action.try"), type="primary", icon=":material/bolt:")
    if pressed and models and text.strip():
        answers(models, text)


def answers(models: list[str], text: str) -> None:
    """One card for each model, side by side."""
    ask = ask_model()
    with st.spinner(t("models.asking")), ThreadPoolExecutor(len(models)) as pool:
        asked = [pool.submit(ask, text, model) for model in models]
    for place, (column, answer) in enumerate(zip(st.columns(len(models)), asked, strict=True)):
        with column:
            try:
                show_answer(models[place], answer.result())
            except LoramillError as error:
                st.html(Markup('<div class="lm-card"><h3>{}</h3></div>').format(isolated(models[place])))
                show_problem(error)


def show_answer(model: str, found: dict[str, Any]) -> None:
    label = found["label_name"] if found["label_name"] is not None else found["label"]
    chances = found["probability"] if isinstance(found["probability"], list) else [found["probability"]]
    chance = next((value for value in chances if value is not None), None)
    card = Markup(
        '<div class="lm-card"><h3>{model}</h3><b class="lm-big" data-testid="answer">{label}</b>{chance}'
        "<small>{latency} ms · {base} · {language}</small>{warning}</div>"
    )
    st.html(
        card.format(
            model=isolated(model),
            label=isolated(", ".join(map(str, label)) if isinstance(label, list) else label),
            chance=bar(chance, f"{chance * 100:.1f} %") if chance is not None else "",
            latency=number(found["latency_ms"], 1),
            base=isolated(found["base_model"], 60),
            language=isolated(found["text_language"], 40),
            warning=Markup("<p>{}</p>").format(isolated(in_own_words(found["warning"])))
            if found.get("warning")
            else "",
        )
    )
