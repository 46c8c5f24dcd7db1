"""The HTML report is one file, needs no network, and shows texts without running them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np

from data_rows import MakeRows, clean_texts
from loramill.data.analyzer import DatasetAnalyzer, describe_lengths
from loramill.data.html_report import bar_chart, histogram, render_report
from loramill.data.validator import DataValidator

ATTACK = "<script>alert('row')</script><img src=x onerror=alert(1)>"


class _Outline(HTMLParser):
    """Which tags and attributes a page has, and whether they close in order."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(make_rows: MakeRows) -> str:
    texts = [*clean_texts(60), ATTACK, ATTACK]
    splits = {"train": make_rows(texts, ["good", "<b>bad</b>"] * 31)}
    report = DataValidator().validate(splits)
    return render_report(f"file {ATTACK}.csv", report, DatasetAnalyzer().analyze(splits), ["a note <i>"])


def test_the_page_is_well_formed_and_has_plots(make_rows: MakeRows) -> None:
    outline = _Outline(page(make_rows))
    assert outline.open == []
    assert outline.tags.count("svg") == 3
    assert outline.tags.count("rect") > 20


def test_nothing_in_the_page_comes_from_elsewhere_or_runs(make_rows: MakeRows) -> None:
    html = page(make_rows)
    outline = _Outline(html)
    assert not {"script", "img", "link", "iframe", "b", "i"} & set(outline.tags)
    assert not [name for name in outline.attributes if name.startswith("on") or name in ("src", "href")]
    assert re.findall(r"https?://[^\"' <]+", html) == ["http://www.w3.org/2000/svg"] * 3


def test_findings_and_facts_are_on_the_page(make_rows: MakeRows) -> None:
    html = page(make_rows)
    for text in ("html_tags", "label_conflict", "62 rows", "&lt;script&gt;", "near copies", "good"):
        assert text in html


def test_bars_are_as_long_as_their_numbers() -> None:
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', bar_chart({"a": 10, "b": 5}, "x"))]
    assert widths[0] == 2 * widths[1] > 0
    assert bar_chart({}, "nothing").count("<rect") == 0
    assert histogram(describe_lengths(np.asarray([1, 2, 3])), "x").count("<rect") == 24
