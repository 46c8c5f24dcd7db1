"""Texts that strangers wrote, shown as they are: never as HTML, Markdown or directions to the eye."""

from __future__ import annotations

import re

from markupsafe import Markup

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""Controls, line separators, zero widths, and the marks that turn the direction of what follows."""

LINE_BREAK = "↵"


def visible(text: object, limit: int = 300) -> str:
    """One line in which nothing is hidden; characters that would not be seen stand as ``⟨U+202E⟩``."""
    line = str(text).replace("\r\n", LINE_BREAK).replace("\n", LINE_BREAK).replace("\r", LINE_BREAK).replace("\t", " ")
    shown = _HIDDEN.sub(_named, line)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def visible_lines(text: str) -> str:
    """The same for many lines, which stay lines."""
    return _HIDDEN.sub(_named, text.replace("\r\n", "\n"))


def isolated(text: object, limit: int = 300) -> Markup:
    """A text for HTML, whose direction turns nothing around it."""
    return Markup("<bdi>{}</bdi>").format(visible(text, limit))


def _named(found: re.Match[str]) -> str:
    return f"⟨U+{ord(found.group()):04X}⟩"
