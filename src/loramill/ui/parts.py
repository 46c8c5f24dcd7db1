"""Pieces that every page is made of: headings, tiles, badges, steps, empty places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import streamlit as st
from markupsafe import Markup

from loramill.ui.plain import isolated
from loramill.ui.texts import t

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
    st.html(Markup('<div class="lm-empty"><b>{}</b><p>{}</p></div>').format(title, what_to_do))


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
    return Markup('<div class="lm-bar"><i style="width:{}"></i><span>{}</span></div>').format(width, label)


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values, one below the other."""
    row = Markup("<tr><th>{}</th><td>{}</td></tr>")
    cells = Markup("").join(row.format(isolated(name), isolated(value, 500)) for name, value in rows)
    st.html(Markup('<table class="lm-facts">{}</table>').format(cells))
