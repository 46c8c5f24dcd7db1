"""Signing in, in the place of whatever page was asked for."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import streamlit as st
from markupsafe import Markup

from loramill.client import Client
from loramill.ui.failures import ENDED, attempt
from loramill.ui.parts import note_box
from loramill.ui.services import STATE, new_client
from loramill.ui.sign_ins import SignIn
from loramill.ui.texts import current_language, t

FRESH = "fresh_sign_in"
LOGO = "data:image/svg+xml;base64," + b64encode(Path(__file__).parents[1].joinpath("logo.svg").read_bytes()).decode()
WELCOME = Markup('<div class="lm-welcome"><h1><img src="{}" alt="loramill"></h1><p>{}</p></div>')


def draw() -> None:
    _, middle, _ = st.columns([1, 1.1, 1])
    with middle:
        st.html(WELCOME.format(LOGO, t("sign_in.about")))
        if st.session_state.get(ENDED):
            note_box(t("sign_in.ended"), "warn")
        with st.form("sign_in_form", border=True):
            username = st.text_input(t("sign_in.username"), key="username", autocomplete="username")
            password = st.text_input(
                t("sign_in.password"), type="password", key="password", autocomplete="current-password"
            )
            pressed = st.form_submit_button(t("action.sign_in"), type="primary", width="stretch")
        if pressed and attempt(lambda: enter(new_client(), username, password)):
            st.rerun()
        st.caption(t("sign_in.no_account"))


def enter(client: Client, username: str, password: str) -> None:
    """Raises ``ApiError``: wrong name or password, or too many tries."""
    reply = client.sign_in(username.strip(), password)
    st.session_state[STATE] = SignIn(
        client, username.strip().lower(), reply["user_id"], reply["role"], language=current_language()
    )
    st.session_state[FRESH] = True
    st.session_state.pop(ENDED, None)
