"""Ways from one page to another, with what the other is to show in its address."""

from __future__ import annotations

from typing import NoReturn

import streamlit as st

STATE = "pages"


def go(name: str, **query: str) -> NoReturn:
    """Show another page."""
    language = st.query_params.get("lang")
    kept = {"lang": language} if language else {}
    st.switch_page(st.session_state[STATE][name], query_params={**kept, **query})
