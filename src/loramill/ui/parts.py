"""Pieces that every page is made of: headings, tiles, badges, steps, empty places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import streamlit as st
from markupsafe import Markup

from loramill.ui.failures import guarded
from loramill.ui.plain import isolated, visible
from loramill.ui.texts import current_language, t

ROW_PIXELS = 33
"""Height of a table's row at the theme's font size."""

Tone = Literal["neutral", "good", "bad", "busy", "warn"]

TONES: dict[str, Tone] = {
    "PENDING": "neutral",
    "STARTED": "busy",
    "PROGRESS": "busy",
    "SUCCESS": "good",
    "FAILURE": "bad",
    "REVOKED": "warn",
    "error": "bad",
    "warning": "warn",
    "production": "good",
    "staging": "busy",
}


@dataclass(frozen=True)
class Tile:
    """A number that matters, and what it is; both may come from strangers."""

    label: str
    value: str
    note: str = ""


def page_title(title: str, about: str = "") -> None:
    st.html(Markup('<div class="lm-title"><h1>{}</h1><p>{}</p></div>').format(title, about))


def section(title: str, note: str = "") -> None:
    st.html(Markup('<div class="lm-section"><h2>{}</h2><span>{}</span></div>').format(title, note))


def badge(text: str, tone: Tone = "neutral") -> Markup:
    return Markup('<span class="lm-badge lm-{}">{}</span>').format(tone, isolated(text, 60))


def status_badge(status: str) -> Markup:
    return badge(t(f"status.{status}"), TONES.get(status, "neutral"))


def heading_with_badges(title: str, badges: Sequence[Markup], note: str = "") -> None:
    """A name that a stranger gave, what is to be known of it at once, and a line below."""
    line = Markup('<div class="lm-heading"><h2>{}</h2>{}<p>{}</p></div>')
    st.html(line.format(isolated(title, 120), Markup("").join(badges), isolated(note)))


def tiles(items: Iterable[Tile]) -> None:
    cell = Markup('<div class="lm-tile"><span>{}</span><b>{}</b><small>{}</small></div>')
    cells = [cell.format(isolated(item.label), isolated(item.value, 60), isolated(item.note, 120)) for item in items]
    st.html(Markup('<div class="lm-tiles">{}</div>').format(Markup("").join(cells)))


def empty_place(title: str, what_to_do: str) -> None:
    """Nothing is here yet, and how that changes."""
    st.html(Markup('<div class="lm-empty"><b>{}</b><p>{}</p></div>').format(title, _with_code(what_to_do)))


def note_box(text: str, tone: Tone = "neutral") -> None:
    """A remark that may hold a stranger's words."""
    st.html(Markup('<div class="lm-note lm-note-{}">{}</div>').format(tone, isolated(text, 2000)))


def stepper(steps: Sequence[tuple[str, Literal["done", "now", "next", "failed", "stopped"]]]) -> None:
    """Where a job is on its way; each step with its state, in words for screen readers too."""
    marks = {"done": "✓", "now": "●", "next": "", "failed": "✕", "stopped": "■"}
    step = Markup('<li class="lm-step-{}" aria-label="{}"><i aria-hidden="true">{}</i><span>{}</span></li>')
    items = [step.format(state, f"{name}: {t(f'step.{state}')}", marks[state], name) for name, state in steps]
    st.html(Markup('<ol class="lm-steps">{}</ol>').format(Markup("").join(items)))


def bar(share: float, label: str) -> Markup:
    """A share of 0 to 1 as a bar with its figure."""
    width = f"{min(max(share, 0.0), 1.0) * 100:.1f}%"
    return Markup('<div class="lm-bar"><div><i style="width:{}"></i></div><span>{}</span></div>').format(width, label)


def table_height(rows: int, most: int = 14) -> int | Literal["content"]:
    """For ``st.dataframe``: as high as its rows, or with a scroll bar; half a row says that there are more."""
    return "content" if rows <= most else round(ROW_PIXELS * (most + 1.5))


def choose_by_address(label: str, names: Mapping[str, str], param: str, *, drops: str = "") -> str:
    """One of several things, kept in the address; the first at first.

    Args:
        names: id -> what is shown of it, which a stranger may have written.
        param: of the address.
        drops: another one of the address, which was about the thing chosen before.
    """

    key = f"{param}_choice"

    def chosen() -> None:
        st.query_params[param] = st.session_state[key]
        st.query_params.pop(drops, None)

    asked = st.query_params.get(param, "")
    now = asked if asked in names else next(iter(names))
    show_chosen(key, now)
    st.selectbox(label, list(names), format_func=lambda name: visible(names[name], 120), key=key, on_change=chosen)
    return now


def show_chosen(key: str, value: object) -> None:
    """Have a widget that is drawn next show this value: what it remembers would win over an ``index``."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value


def draw_tabs(shows: Mapping[str, Callable[[], None]]) -> None:
    """The address names the open tab, and nothing is asked for the others.

    Args:
        shows: name of a tab -> what draws it.
    """
    names = {t(f"tab.{name}"): name for name in shows}
    key = f"tabs_{'_'.join(shows)}_{current_language()}"

    def turned() -> None:
        st.query_params["tab"] = names[st.session_state[key]]

    asked = st.query_params.get("tab", "")
    default = t(f"tab.{asked}") if asked in shows else None
    tabs = st.tabs(list(names), default=default, key=key, on_change=turned)
    for tab, show in zip(tabs, shows.values(), strict=True):
        if tab.open:
            with tab:
                guarded(show)()


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values, one below the other."""
    row = Markup("<tr><th>{}</th><td>{}</td></tr>")
    cells = Markup("").join(row.format(isolated(name), isolated(value, 500)) for name, value in rows)
    st.html(Markup('<table class="lm-facts">{}</table>').format(cells))


def _with_code(text: str) -> Markup:
    """A text of our own, with what stands between backticks as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )
