"""Texts of both themes can be read: the contrasts of WCAG 2.2, level AA."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loramill.ui.server import THEME

CSS = Path(__file__).parents[2] / "src" / "loramill" / "ui" / "style.css"
TEXT, GRAPHIC = 4.5, 3.0
TINT = 0.10
THEMES = ("light", "dark")
TONES = ("good", "bad", "busy", "warn", "quiet")

Colour = tuple[float, float, float]


def colour(text: str) -> Colour:
    red, green, blue = (int(text[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue


def own(name: str, theme: str) -> Colour:
    """A colour of the style sheet."""
    found = re.search(rf"--lm-{name}: light-dark\((#\w+), (#\w+)\)", CSS.read_text(encoding="utf-8"))
    assert found, name
    return colour(found[1 + THEMES.index(theme)])


def of_theme(name: str, theme: str) -> Colour:
    return colour(THEME[f"theme.{theme}.{name}"])


def luminance(of: Colour) -> float:
    """WCAG 2.2, relative luminance."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in of)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Colour, other: Colour) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def mixed(front: Colour, back: Colour, share: float) -> Colour:
    red, green, blue = (share * one + (1 - share) * other for one, other in zip(front, back, strict=True))
    return red, green, blue


def papers(theme: str) -> list[Colour]:
    return [of_theme("backgroundColor", theme), of_theme("secondaryBackgroundColor", theme)]


@pytest.mark.parametrize("theme", THEMES)
def test_texts(theme: str) -> None:
    for paper in papers(theme):
        assert contrast(of_theme("textColor", theme), paper) >= TEXT
        assert contrast(of_theme("primaryColor", theme), paper) >= TEXT
        assert contrast(own("quiet", theme), paper) >= TEXT


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("tone", TONES)
def test_badges_and_notes(tone: str, theme: str) -> None:
    for paper in papers(theme):
        assert contrast(own(tone, theme), mixed(own(tone, theme), paper, TINT)) >= TEXT


@pytest.mark.parametrize("theme", THEMES)
def test_what_stands_on_an_accent(theme: str) -> None:
    for accent in (of_theme("primaryColor", theme), *(own(tone, theme) for tone in TONES)):
        assert contrast(own("on-accent", theme), accent) >= TEXT


@pytest.mark.parametrize("theme", THEMES)
def test_lines_of_charts(theme: str) -> None:
    paper = of_theme("backgroundColor", theme)
    assert [
        name for name in THEME[f"theme.{theme}.chartCategoricalColors"] if contrast(colour(name), paper) < GRAPHIC
    ] == []


def test_a_button_that_cannot_be_pressed_keeps_the_colour_of_its_own() -> None:
    """The colour for words on the accent is that of the paper, on which such a button stands."""
    rules = [line for line in CSS.read_text(encoding="utf-8").splitlines() if "kind^=primary" in line]
    assert rules
    assert all("button[kind^=primary]:enabled" in rule for rule in rules)
