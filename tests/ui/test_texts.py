"""Both languages say everything."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from loramill.config.keys import iter_keys
from loramill.errors import LoramillError
from loramill.ui.texts import LANGUAGES, language_of_browser, read_texts

UI = Path(__file__).parents[2] / "src" / "loramill" / "ui"
ENGLISH_ELSEWHERE = ("about.", "fix.", "preset.", "todo.")
"""Texts that the schema and the service have in English already."""

FAMILIES = (
    "about", "change", "chart", "diff", "error", "field", "finding", "fix", "kind", "metric", "nav", "option", "preset",
    "quota", "role", "sampler", "section", "severity", "sort", "stage", "status", "step", "tab", "todo",
)  # fmt: skip
"""Keys that are put together at run time."""


def nodes() -> Iterator[ast.AST]:
    for file in UI.rglob("*.py"):
        yield from ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def keys_in_code() -> set[str]:
    words = (node.value for node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {word for word in words if re.fullmatch(r"[a-z_]+(\.[a-zA-Z_0-9]+)+", word)}


def calls_of_t() -> set[str]:
    calls = (node for node in nodes() if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "t")
    return {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_key_is_missing(language: str) -> None:
    assert calls_of_t() - read_texts(language).keys() == set()
    assert {f"field.{key}" for key, _ in iter_keys()} - read_texts(language).keys() == set()


def test_both_languages_have_the_same_keys_and_the_same_holes() -> None:
    english, chinese = read_texts("en"), read_texts("zh-TW")
    extra = {key for key in chinese.keys() ^ english.keys() if not key.startswith(ENGLISH_ELSEWHERE)}
    assert extra == set()
    for key in english:
        assert holes(english[key]) == holes(chinese[key]), key
    assert {f"about.{key}" for key, _ in iter_keys()} - chinese.keys() == set()


def test_every_error_is_named_and_every_finding_has_its_advice() -> None:
    codes = {kind.code for kind in kinds_of_errors(LoramillError)} - {"error", "api_error"}
    for language in LANGUAGES:
        assert {f"error.{code}" for code in codes} - read_texts(language).keys() == set()
    chinese = read_texts("zh-TW")
    assert {f"todo.{code}" for code in codes} - chinese.keys() == set()
    findings = {key.partition(".")[2] for key in chinese if key.startswith("finding.")}
    assert {f"fix.{code}" for code in findings} - chinese.keys() == set()


def test_every_preset_is_described_in_chinese() -> None:
    presets = {file.stem for file in (UI.parents[2] / "config").glob("*.yaml")}
    assert {f"preset.{name}" for name in presets} - read_texts("zh-TW").keys() == set()


def kinds_of_errors(kind: type[LoramillError]) -> Iterator[type[LoramillError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from kinds_of_errors(below)


def holes(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)", text))


def test_no_text_is_left_over() -> None:
    used = keys_in_code()
    left = {key for key in read_texts("en") if key not in used and key.partition(".")[0] not in FAMILIES}
    assert left == set()


def test_the_browser_chooses() -> None:
    chosen = [language_of_browser(locale) for locale in ("zh-TW", "zh-CN", "de-DE", None)]
    assert chosen == ["zh-TW", "zh-TW", "en", "en"]
