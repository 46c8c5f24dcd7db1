"""The frame around every page: theme, language, who is signed in, and where one can go."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import streamlit as st
from markupsafe import Markup
from streamlit.navigation.page import StreamlitPage

from loramill.errors import LoramillError
from loramill.ui.browser_session import cookie_of_browser, keep_session
from loramill.ui.failures import guarded
from loramill.ui.pages import admin, compare, data, experiment, experiments, models, sign_in, sweeps, tasks, train
from loramill.ui.places import STATE as PAGES
from loramill.ui.places import go
from loramill.ui.plain import isolated
from loramill.ui.services import STATE, signed_in
from loramill.ui.sign_ins import SignIn, sign_ins
from loramill.ui.texts import LANGUAGES, choose_language, current_language, t

HERE = Path(__file__).parent
TICKET = "ticket"
CHOICE = "language_choice"
WORK = ("home", "train", "tasks", "experiments", "sweeps", "experiment", "compare")
LANGUAGE_PIXELS = 160


def draw() -> None:
    """One look at the page."""
    st.set_page_config(page_title="loramill", page_icon=str(HERE / "icon.svg"), layout="wide")
    st.html(HERE / "style.css")
    st.html(f"<style>:root {{ --lm-choose-file: {json.dumps(t('data.choose_file'), ensure_ascii=False)}; }}</style>")
    person = signed_in() or find_again()
    keep_cookie(person)
    page = navigation(person)
    if person is None:
        language_choice(st.container(horizontal=True, horizontal_alignment="right"))
        guarded(sign_in.draw)()
        return
    sidebar(person)
    guarded(page.run)()


def find_again() -> SignIn | None:
    """The sign-in that this browser's cookie leads to: how a reload stays signed in."""
    found = sign_ins().find(cookie_of_browser())
    if found is not None:
        st.session_state[STATE] = found
        if found.language:
            st.session_state.setdefault("language", found.language)
    return found


def keep_cookie(person: SignIn | None) -> None:
    """Have the browser take its cookie after a sign-in, and drop it after a sign-out."""
    if person is not None and sign_in.FRESH in st.session_state:
        del st.session_state[sign_in.FRESH]
        st.session_state[TICKET] = (sign_ins().issue_ticket(person), True)
    if TICKET in st.session_state:
        ticket, opened = st.session_state[TICKET]
        keep_session(ticket, opened=opened)


def navigation(person: SignIn | None) -> StreamlitPage:
    """All pages are there whoever looks, so that an address survives a sign-in."""
    is_admin = person is not None and person.is_admin
    pages = {
        "home": _page(home, "home", None, default=True, hidden=True),
        "train": _page(train.draw, "train", ":material/model_training:"),
        "tasks": _page(tasks.draw, "tasks", ":material/pending_actions:"),
        "experiments": _page(experiments.draw, "experiments", ":material/science:"),
        "sweeps": _page(sweeps.draw, "sweeps", ":material/grid_view:"),
        "data": _page(data.draw, "data", ":material/table_rows:"),
        "models": _page(models.draw, "models", ":material/deployed_code:"),
        "admin": _page(admin.draw, "admin", ":material/admin_panel_settings:", hidden=not is_admin),
        "experiment": _page(experiment.draw, "experiment", None, hidden=True),
        "compare": _page(compare.draw, "compare", None, hidden=True),
    }
    st.session_state[PAGES] = pages
    sections = {
        t("nav.work"): [pages[name] for name in WORK],
        t("nav.things"): [pages[name] for name in ("data", "models")],
        t("nav.service"): [pages["admin"]],
    }
    return st.navigation(sections, position="sidebar" if person else "hidden")


def _page(
    draw: Callable[[], None], name: str, icon: str | None, *, default: bool = False, hidden: bool = False
) -> StreamlitPage:
    visibility: Literal["visible", "hidden"] = "hidden" if hidden else "visible"
    return st.Page(draw, title=t(f"nav.{name}"), icon=icon, url_path=name, default=default, visibility=visibility)


def home() -> None:
    """Each page has an address of its own; the bare one leads to the first."""
    go("train")


def sidebar(person: SignIn) -> None:
    st.logo(HERE / "logo.svg", icon_image=HERE / "icon.svg", size="large")
    with st.sidebar:
        language_choice(st.container(), width="stretch")
        who = Markup('<div class="lm-who"><b>{}</b><small>{}</small></div>')
        st.html(who.format(isolated(person.username, 64), t(f"role.{person.role}")))
        if st.button(t("action.sign_out"), icon=":material/logout:", width="stretch", key="sign_out"):
            sign_out(person)


def sign_out(person: SignIn) -> None:
    """End it at the API, in every tab, and in the browser."""
    with contextlib.suppress(LoramillError):  # the API is away: the tokens are forgotten here all the same
        person.client.sign_out()
    person.ended = True
    language = current_language()
    st.session_state.clear()
    choose_language(language)
    st.session_state[TICKET] = (f"out-{id(person)}", False)
    st.rerun()


def language_choice(
    place: st.delta_generator.DeltaGenerator, width: int | Literal["stretch"] = LANGUAGE_PIXELS
) -> None:
    """By hand; the address keeps it, and so does the sign-in."""
    now = current_language()

    def chosen() -> None:
        language = st.session_state[CHOICE]
        choose_language(language)
        person = signed_in()
        if person is not None:
            person.language = language

    place.selectbox(
        t("nav.language"),
        list(LANGUAGES),
        index=list(LANGUAGES).index(now),
        format_func=lambda language: LANGUAGES[language],
        key=CHOICE,
        on_change=chosen,
        label_visibility="collapsed",
        width=width,
    )
    if st.session_state.get("language"):
        st.query_params["lang"] = now
