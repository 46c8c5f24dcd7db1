"""The page's own words, in the reader's language."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import streamlit as st

LANGUAGES = {"en": "English", "zh-TW": "繁體中文"}
FOLDER = Path(__file__).with_name("i18n")
STATE = "language"


@functools.cache
def read_texts(language: str) -> dict[str, str]:
    """Key -> text of one language."""
    texts: dict[str, str] = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return texts


def t(key: str, /, **values: object) -> str:
    """The text behind a key, with ``{values}`` filled in. They must be our own words or numbers."""
    text = read_texts(current_language())[key]
    return text.format(**values) if values else text


def has_text(key: str) -> bool:
    return key in read_texts(current_language())


def current_language() -> str:
    """Chosen by hand, by the address, or by the browser."""
    chosen = st.session_state.get(STATE) or st.query_params.get("lang")
    return chosen if chosen in LANGUAGES else language_of_browser(st.context.locale)


def language_of_browser(locale: str | None) -> str:
    """Readers of any Chinese get Traditional Chinese, everybody else English."""
    return "zh-TW" if (locale or "").lower().startswith("zh") else "en"


def choose_language(language: str) -> None:
    st.session_state[STATE] = language
