"""Rules for texts: repairs give back what was meant, and the table of rules is in order."""

from __future__ import annotations

import pyarrow as pa
import pytest

from loramill.config.schema import ValidationRules
from loramill.data.checks.texts import (
    is_encoded_twice,
    is_html,
    text_rules,
    with_encoding_repaired,
    without_html,
)


def array(*texts: str | None) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


@pytest.mark.parametrize(
    "text",
    ["clichés", "naïveté", "这本书很好看", "Grüße", "SÃO", "« déjà »", "Ötzi", "Ωμέγα", "Привет", "日本語", "한국어"],
)
@pytest.mark.parametrize("wrong", ["latin-1", "cp1252"])
def test_text_decoded_with_the_wrong_encoding_is_found_and_repaired(text: str, wrong: str) -> None:
    meant = f"It says {text} on the cover, {text} inside."
    try:
        damaged = meant.encode("utf-8").decode(wrong)
    except UnicodeDecodeError:
        pytest.skip("cp1252 has no letter for one of these bytes")
    assert is_encoded_twice(array(damaged, meant)).tolist() == [True, False]
    assert with_encoding_repaired(array(damaged)).to_pylist() == [meant]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<p>One</p><p>two</p>", " One  two "),
        ("<script>alert('x')</script>text", " text"),
        ("<style>p {}</style >text<!-- note -->", " text "),
        ('<a href="https://e.org/?a=1&amp;b=2">link</a>', " link "),
        ("1 &lt; 2 &amp;&amp; 3", "1 < 2 && 3"),
        ("<BR />", " "),
        ("One&lt;br /&gt;two &amp; three", "One two & three"),
        ('<a title="a &gt; b">link</a>', " link "),
        ("<strike>so</strike> <del>much</del> <noscript>more</noscript>", " so   much   more "),
        ("it costs 5 &euro;, &pound;4 or &frac12; &trade;", "it costs 5 €, £4 or ½ ™"),
        ("Stra&szlig;e &ntilde; &bull; &AMP;", "Straße ñ • &"),
    ],
)
def test_markup_is_found_and_taken_out(text: str, plain: str) -> None:
    assert any(rule.find(array(text))[0] for rule in text_rules(ValidationRules()) if rule.code.startswith("html_"))
    assert without_html(array(text)).to_pylist() == [plain]


@pytest.mark.parametrize(
    "text", ["a < b > c", "I <3 you", "<unk> token", "List<String> is a type", "x<y>z", "->", "<<", "R&D; &x;"]
)
def test_angle_brackets_alone_are_no_markup(text: str) -> None:
    assert is_html(array(text)).tolist() == [False]
    assert without_html(array(text)).to_pylist() == [text]


def test_rules_have_a_name_a_fix_and_a_mask_for_every_row() -> None:
    rules = text_rules(ValidationRules())
    texts = array("a text", None, "", "<b>x</b>")
    assert len({rule.code for rule in rules}) == len(rules) >= 20
    for rule in rules:
        assert rule.fix.endswith(".")
        assert rule.find(texts).shape == (4,)
        assert not rule.find(texts)[1] or rule.code == "text_missing"


def test_the_config_decides_what_is_an_error() -> None:
    def severities(**options: bool) -> dict[str, str]:
        return {rule.code: rule.severity for rule in text_rules(ValidationRules(**options))}

    assert severities()["text_empty"] == "error"
    assert severities(allow_empty=True)["text_empty"] == "info"
    assert severities()["html_tags"] == "warning"
    assert severities(remove_html=True)["html_tags"] == "info"
