"""What one version of a data set is like: its findings, rows, lengths and words, history, and labels in doubt."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from loramill.api_session import ApiError
from loramill.ui.charts import draw_bars, draw_histogram
from loramill.ui.failures import attempt
from loramill.ui.formats import number, when
from loramill.ui.parts import Tile, empty_place, note_box, section, table_height, tiles
from loramill.ui.plain import visible
from loramill.ui.services import api
from loramill.ui.texts import has_text, t

SHOWN_ROWS = 200
REPORT = "data_report"
FREQUENT_WORDS = 8


def findings(dataset: dict[str, Any], version: dict[str, Any]) -> None:
    """Every finding with its row, what was found, and what to do; and the way out."""
    report = report_of(dataset["dataset_id"], version["version"])
    left, right = st.columns([1, 1.6])
    with left:
        section(t("data.label_counts"))
        if report["label_counts"]:
            draw_bars(report["label_counts"], x=t("data.label"), y=t("axis.rows"), key="label_counts")
        else:
            st.caption(t("data.no_classes"))
    with right:
        section(t("data.by_rule"))
        if report["finding_counts"]:
            counts = {_rule(code): count for code, count in report["finding_counts"].items()}
            draw_bars(counts, x=t("data.rule"), y=t("axis.rows"), key="finding_counts")
        else:
            note_box(t("data.clean"), "good")
            return
    section(t("data.every_finding"), t("data.excerpts_about"))
    shown = report["findings"]
    st.dataframe(
        pd.DataFrame([_finding(found) for found in shown]),
        hide_index=True,
        height=table_height(len(shown), 9),
        alt=t("data.every_finding"),
        column_config={
            t("column.split"): st.column_config.Column(width=70),
            t("column.row"): st.column_config.Column(width=60),
            t("column.column"): st.column_config.Column(width=70),
            t("column.excerpt"): st.column_config.Column(width=280),
            t("column.fix"): st.column_config.Column(width="large"),
        },
    )
    section(t("data.mend"), t("data.mend_about"))
    clean_form(dataset, version)


def _rule(code: str) -> str:
    key = f"finding.{code}"
    return t(key) if has_text(key) else code


def _finding(found: dict[str, Any]) -> dict[str, Any]:
    fix = t(f"fix.{found['code']}") if has_text(f"fix.{found['code']}") else visible(found["fix"])
    return {
        t("column.severity"): t(f"severity.{found['severity']}"),
        t("column.rule"): _rule(found["code"]),
        t("column.split"): visible(found["split"]),
        t("column.row"): found["row"],
        t("column.column"): visible(found["column"] or ""),
        t("column.excerpt"): visible(found["excerpt"]),
        t("column.fix"): fix,
    }


def report_of(dataset_id: str, version: int) -> dict[str, Any]:
    """The whole validation of a version, which never changes: asked for once in a session."""
    known: tuple[Any, dict[str, Any]] | None = st.session_state.get(REPORT)
    if known is None or known[0] != (dataset_id, version):
        with st.spinner(t("data.validating")):
            known = (dataset_id, version), api().validate_dataset(dataset_id, version=version)
        st.session_state[REPORT] = known
    return known[1]


def clean_form(dataset: dict[str, Any], version: dict[str, Any]) -> None:
    with st.form("clean_form", border=False):
        columns = st.columns(4, vertical_alignment="bottom")
        shortest = columns[0].number_input(t("field.data.validation_rules.min_text_length"), 0, None, 1, 1)
        longest = columns[1].number_input(t("field.data.validation_rules.max_text_length"), 1, None, 100_000, 100)
        html = columns[2].toggle(t("field.data.validation_rules.remove_html"), True)
        pressed = columns[3].form_submit_button(t("action.clean"), icon=":material/cleaning_services:")
    if pressed:
        rules = {"min_text_length": shortest, "max_text_length": longest, "remove_html": html}
        attempt(lambda: clean(dataset["dataset_id"], version["version"], rules))


def clean(dataset_id: str, version: int, rules: dict[str, Any]) -> None:
    with st.spinner(t("data.cleaning")):
        made = api().clean_dataset(dataset_id, version=version, rules=rules)
    st.query_params["version"] = str(made["version"])
    st.rerun()


def rows(dataset: dict[str, Any], version: dict[str, Any]) -> None:
    columns = st.columns([1, 1, 3], vertical_alignment="bottom")
    split = columns[0].selectbox(t("data.split"), list(version["splits"]), format_func=visible, key="split")
    last = version["splits"][split]["rows"]
    first = columns[1].number_input(t("data.first_row"), 0, max(0, last - 1), 0, SHOWN_ROWS, key="first_row")
    found = api().dataset_rows(
        dataset["dataset_id"], version=version["version"], split=split, first=first, count=SHOWN_ROWS
    )
    table = [
        {"#": first + place, **{key: visible(value, 2000) for key, value in row.items()}}
        for place, row in enumerate(found)
    ]
    narrow = {"#": st.column_config.Column(width=60)}
    st.dataframe(
        pd.DataFrame(table),
        hide_index=True,
        height=table_height(len(table), 12),
        alt=t("tab.rows"),
        column_config=narrow,
    )


def analysis(dataset: dict[str, Any], version: dict[str, Any]) -> None:
    found = api().dataset_analysis(dataset["dataset_id"], version=version["version"])
    for split, numbers in found.items():
        section(visible(split, 40))
        characters, words = numbers["characters"], numbers["vocabulary"]
        tiles(
            [
                Tile(
                    t("analysis.median"),
                    number(characters["median"]),
                    t("analysis.p95", value=number(characters["p95"])),
                ),
                Tile(t("analysis.longest"), number(characters["maximum"]), t("unit.characters")),
                Tile(t("analysis.words"), number(words["distinct"]), t("analysis.once", count=number(words["once"]))),
                Tile(
                    t("analysis.distinct"),
                    number(numbers["distinct_texts"]),
                    t("analysis.of", rows=number(numbers["rows"])),
                ),
                Tile(t("analysis.near"), number(numbers["near_duplicates"])),
            ]
        )
        left, middle, right = st.columns(3)
        with left:
            section(t("analysis.lengths"))
            axes = {"x": t("unit.characters"), "y": t("axis.rows")}
            draw_histogram(characters["edges"], characters["counts"], **axes, key=f"lengths_{split}")
        with middle:
            section(t("analysis.frequent"))
            frequent = {word: float(count) for word, count in words["most_frequent"][:FREQUENT_WORDS]}
            draw_bars(frequent, x=t("analysis.word"), y=t("axis.times"), key=f"words_{split}")
        with right:
            section(t("analysis.languages"))
            shares = {name: share * 100 for name, share in numbers["languages"].items()}
            draw_bars(shares, x=t("analysis.language"), y=t("axis.percent"), key=f"languages_{split}")


def history(dataset: dict[str, Any], versions: list[dict[str, Any]]) -> None:
    """Every version, and what changed between two."""
    table = [
        {
            t("column.version"): item["version"],
            t("column.kind"): t(f"kind.{item['kind']}"),
            t("column.source"): visible(item["source"], 80),
            t("column.rows"): item["rows"],
            t("column.findings"): sum(item["report"]["finding_counts"].values()),
            t("column.changes"): ", ".join(_changed(what, count) for what, count in item["changes"].items()),
            t("column.made"): when(item["created_at"]),
            t("column.id"): item["dataset_name"],
        }
        for item in reversed(versions)
    ]
    st.dataframe(pd.DataFrame(table), hide_index=True, alt=t("tab.versions"))
    if len(versions) < 2:
        st.caption(t("data.one_version"))
        return
    numbers = [item["version"] for item in versions]
    columns = st.columns([1, 1, 1, 2])
    before = columns[0].selectbox(t("diff.before"), numbers, index=len(numbers) - 2, key="before")
    after = columns[1].selectbox(t("diff.after"), numbers, index=len(numbers) - 1, key="after")
    split = columns[2].selectbox(t("data.split"), list(versions[-1]["splits"]), format_func=visible, key="diff_split")
    show_diff(api().diff_dataset(dataset["dataset_id"], before, after, split=split))


def _changed(what: str, count: int) -> str:
    """``html_tags repaired`` and how many rows, in the reader's words."""
    code, _, action = what.partition(" ")
    return f"{_rule(code)}: {t(f'change.{action}', count=number(count))}"


def show_diff(found: dict[str, Any]) -> None:
    kinds = ("added", "removed", "relabelled")
    tiles([Tile(t(f"diff.{kind}"), number(found[kind])) for kind in (*kinds, "unchanged")])
    table = [
        {t("column.change"): t(f"diff.{kind}"), **{key: visible(value, 300) for key, value in example.items()}}
        for kind in kinds
        for example in found[f"{kind}_examples"]
    ]
    if table:
        st.dataframe(pd.DataFrame(table), hide_index=True, height=table_height(len(table), 10), alt=t("column.change"))


def suspects(version: dict[str, Any]) -> None:
    """Rows that a run on this data contradicts: often it is the label that is wrong."""
    runs = api().experiments(dataset_name=version["dataset_name"], status="SUCCESS", limit=20)["items"]
    if not runs:
        empty_place(t("suspects.none"), t("suspects.none_about"))
        return
    names = {run["id"]: visible(run["id"], 100) for run in runs}
    chosen = st.selectbox(t("suspects.run"), list(names), format_func=lambda key: names[key], key="suspects_run")
    try:
        found = api().request("GET", f"/experiments/{chosen}/suspects", params={"count": 50})
    except ApiError as error:
        if error.status != 404:
            raise
        found = []
    table = [
        {
            t("column.row"): item["row"],
            t("column.label"): visible(item["label"]),
            t("column.prediction"): visible(item["prediction"]),
            t("column.loss"): round(item["loss"], 3),
            t("column.text"): visible(item["text"] or "", 400),
        }
        for item in found
    ]
    note_box(t("suspects.about"))
    if table:
        st.dataframe(pd.DataFrame(table), hide_index=True, alt=t("tab.suspects"))
    else:
        st.caption(t("suspects.all_right"))
