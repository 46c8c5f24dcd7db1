from __future__ import annotations

import pytest

from loramill.ui.plain import isolated, visible, visible_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 文字", "plain 文字"),
        ("a\r\nb\rc\td", "a↵b↵c d"),
        ("\u202eevil\u2066", "⟨U+202E⟩evil⟨U+2066⟩"),
        ("nul\x00 zero\u200bwidth", "nul⟨U+0000⟩ zero⟨U+200B⟩width"),
    ],
)
def test_nothing_is_hidden(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_lines_stay_lines() -> None:
    assert visible_lines("a\r\nb\u202e\nc") == "a\nb⟨U+202E⟩\nc"


def test_html_is_text() -> None:
    assert isolated("<b>&") == "<bdi>&lt;b&gt;&amp;</bdi>"
