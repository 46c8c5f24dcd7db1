"""Data sets: upload one, see what is wrong with it row by row, clean it, compare its versions, train on it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from loramill.client import ApiError
from loramill.ui.charts import draw_bars
from loramill.ui.failures import attempt
from loramill.ui.formats import number, size, when
from loramill.ui.parts import Tile, empty_place, heading_with_badges, note_box, page_title, section, tiles
from loramill.ui.places import go
from loramill.ui.plain import visible
from loramill.ui.services import api
from loramill.ui.texts import has_text, t

FORMATS = ["csv", "tsv", "jsonl", "json", "parquet", "zip", "tar", "gz", "tgz"]
SHOWN_ROWS = 200
REPORT = "data_report"


def draw() -> None:
    page_title(t("data.title"), t("data.about"))
    found = api().datasets(limit=200)["items"]
    with st.expander(t("data.upload"), expanded=not found, icon=":material/upload_file:"):
        upload_form(found)
    if not found:
        empty_place(t("data.none"), t("data.none_about"))
        return
    chosen = choose(found)
    versions = api().dataset_versions(chosen["dataset_id"])
    with st.container(border=True):
        version = head(chosen, versions)
        names = ["findings", "rows", "analysis", "versions", "suspects"]
        views = st.tabs([t(f"tab.{name}") for name in names])
        shows = (findings, rows, analysis, history, suspects)
        for place, show in zip(views, shows, strict=True):
            with place:
                show(chosen, version, versions)


def upload_form(found: list[dict[str, Any]]) -> None:
    with st.form("upload_form", clear_on_submit=True, border=False):
        file = st.file_uploader(t("data.file"), FORMATS, key="file")
        columns = st.columns(4)
        name = columns[0].text_input(t("data.name"), placeholder=t("data.name_about"))
        text = columns[1].text_input(t("data.text_column"), placeholder=t("form.found"))
        label = columns[2].text_input(t("data.label_column"), placeholder=t("form.found"))
        options = {None: t("data.new"), **{item["dataset_id"]: visible(item["name"], 60) for item in found}}
        target = columns[3].selectbox(t("data.version_of"), list(options), format_func=lambda key: options[key])
        pressed = st.form_submit_button(t("action.upload"), type="primary", icon=":material/upload:")
    if pressed and file is None:
        note_box(t("data.no_file"), "warn")
    elif pressed and file is not None:
        query = {"text_column": text, "label_column": label, "name": "" if target else name}
        attempt(lambda: upload(file, target, {key: value for key, value in query.items() if value}))


def upload(file: Any, target: str | None, query: dict[str, str]) -> None:
    """Hand the file on to the API, which reads it as it comes."""
    with st.spinner(t("data.uploading")), tempfile.TemporaryDirectory(prefix="loramill-upload-") as folder:
        path = Path(folder) / "upload"
        path.write_bytes(file.getbuffer())
        made = api().upload(path, dataset_id=target, filename=file.name, **query)
    st.query_params["dataset"] = target or made["dataset_id"]
    st.query_params.pop("version", None)
    st.session_state.pop(REPORT, None)
    st.rerun()


def choose(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The data set that the address names, or the newest."""
    by_id = {item["dataset_id"]: item for item in found}
    asked = st.query_params.get("dataset")

    def chosen() -> None:
        st.query_params["dataset"] = st.session_state["dataset_choice"]
        st.query_params.pop("version", None)

    now = asked if asked in by_id else found[0]["dataset_id"]
    st.selectbox(
        t("data.choose"),
        list(by_id),
        index=list(by_id).index(now),
        format_func=lambda key: f"{visible(by_id[key]['name'], 80)} · {number(by_id[key]['newest']['rows'])} · {key}",
        key="dataset_choice",
        on_change=chosen,
    )
    return by_id[now]


def head(dataset: dict[str, Any], versions: list[dict[str, Any]]) -> dict[str, Any]:
    """Name, totals, and what can be done; returns the version that is looked at."""
    left, middle, right = st.columns([2.6, 1, 2], vertical_alignment="center")
    numbers = [version["version"] for version in versions]
    asked = st.query_params.get("version", "")
    now = int(asked) if asked.isdecimal() and int(asked) in numbers else numbers[-1]
    version = versions[numbers.index(now)]
    with left:
        note = f"{dataset['dataset_id']} · {version['source']} · {when(version['created_at'])}"
        heading_with_badges(dataset["name"], [], note)
    middle.selectbox(
        t("data.version"), numbers, index=numbers.index(now), key="version_choice", on_change=_version_chosen
    )
    with right.container(horizontal=True, horizontal_alignment="right"):
        if st.button(t("action.train_on_it"), type="primary", icon=":material/model_training:", key="train_on_it"):
            go("train", data=f"{dataset['dataset_id']}@{now}")
        if st.button(t("action.delete"), icon=":material/delete:", key="delete_dataset"):
            confirm_deletion(dataset)
    totals(version)
    return version


def _version_chosen() -> None:
    st.query_params["version"] = str(st.session_state["version_choice"])


def totals(version: dict[str, Any]) -> None:
    report = version["report"]
    counts = report["finding_counts"]
    ratio = report.get("imbalance_ratio")
    balance = t("data.balanced") if report.get("is_balanced") else t("data.imbalanced")
    splits = ", ".join(f"{name} {number(split['rows'])}" for name, split in version["splits"].items())
    tiles(
        [
            Tile(t("data.rows"), number(version["rows"]), splits),
            Tile(t("data.labels"), number(len(report["label_counts"])), balance),
            Tile(t("data.ratio"), number(ratio, 2), t("data.ratio_about")),
            Tile(t("data.findings"), number(sum(counts.values())), t("data.rules", count=len(counts))),
            Tile(t("data.size"), size(version["bytes"])),
        ]
    )


def confirm_deletion(dataset: dict[str, Any]) -> None:
    @st.dialog(t("data.delete_title"))
    def ask() -> None:
        st.write(t("data.delete_about"))
        st.code(visible(dataset["name"]), language=None)
        sure = st.button(t("action.delete"), type="primary", icon=":material/delete:", key="really_delete")
        if sure and attempt(lambda: api().delete_dataset(dataset["dataset_id"])):
            st.query_params.pop("dataset", None)
            st.rerun()

    ask()


def findings(dataset: dict[str, Any], version: dict[str, Any], _versions: list[dict[str, Any]]) -> None:
    """Every finding with its row, what was found, and what to do; and the way out."""
    report = report_of(dataset["dataset_id"], version["version"])
    left, right = st.columns([1, 1.6])
    with left:
        section(t("data.label_counts"))
        draw_bars(report["label_counts"], x=t("data.label"), y=t("axis.rows"), key="label_counts")
    with right:
        section(t("data.by_rule"))
        if report["finding_counts"]:
            counts = {_rule(code): count for code, count in report["finding_counts"].items()}
            draw_bars(counts, x=t("data.rule"), y=t("axis.rows"), key="finding_counts")
        else:
            note_box(t("data.clean"), "good")
            return
    section(t("data.every_finding"), t("data.excerpts_about"))
    st.dataframe(pd.DataFrame([_finding(found) for found in report["findings"]]), hide_index=True, height=320)
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


def rows(dataset: dict[str, Any], version: dict[str, Any], _versions: list[dict[str, Any]]) -> None:
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
    st.dataframe(pd.DataFrame(table), hide_index=True, height=420)


def analysis(dataset: dict[str, Any], version: dict[str, Any], _versions: list[dict[str, Any]]) -> None:
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
        edges = characters["edges"]
        lengths = {
            f"{edges[place]}–{edges[place + 1]}": count for place, count in enumerate(characters["counts"]) if count
        }
        with left:
            draw_bars(lengths, x=t("unit.characters"), y=t("axis.rows"), key=f"lengths_{split}", height=320)
        with middle:
            frequent = {word: float(count) for word, count in words["most_frequent"][:8]}
            draw_bars(frequent, x=t("analysis.word"), y=t("axis.times"), key=f"words_{split}", height=320)
        with right:
            shares = {name: share * 100 for name, share in numbers["languages"].items()}
            draw_bars(shares, x=t("analysis.language"), y=t("axis.percent"), key=f"languages_{split}", height=320)


def history(dataset: dict[str, Any], _version: dict[str, Any], versions: list[dict[str, Any]]) -> None:
    """Every version, and what changed between two."""
    table = [
        {
            t("column.version"): item["version"],
            t("column.kind"): t(f"kind.{item['kind']}"),
            t("column.source"): visible(item["source"], 80),
            t("column.rows"): item["rows"],
            t("column.findings"): sum(item["report"]["finding_counts"].values()),
            t("column.changes"): visible(", ".join(f"{rule}: {count}" for rule, count in item["changes"].items()), 200),
            t("column.created"): when(item["created_at"]),
            t("column.id"): item["dataset_name"],
        }
        for item in reversed(versions)
    ]
    st.dataframe(pd.DataFrame(table), hide_index=True)
    if len(versions) < 2:
        st.caption(t("data.one_version"))
        return
    numbers = [item["version"] for item in versions]
    columns = st.columns([1, 1, 1, 2])
    before = columns[0].selectbox(t("diff.before"), numbers, index=len(numbers) - 2, key="before")
    after = columns[1].selectbox(t("diff.after"), numbers, index=len(numbers) - 1, key="after")
    split = columns[2].selectbox(t("data.split"), list(versions[-1]["splits"]), format_func=visible, key="diff_split")
    show_diff(api().diff_dataset(dataset["dataset_id"], before, after, split=split))


def show_diff(found: dict[str, Any]) -> None:
    kinds = ("added", "removed", "relabelled")
    tiles([Tile(t(f"diff.{kind}"), number(found[kind])) for kind in (*kinds, "unchanged")])
    table = [
        {t("column.change"): t(f"diff.{kind}"), **{key: visible(value, 300) for key, value in example.items()}}
        for kind in kinds
        for example in found[f"{kind}_examples"]
    ]
    if table:
        st.dataframe(pd.DataFrame(table), hide_index=True, height=min(38 + 35 * len(table), 380))


def suspects(_dataset: dict[str, Any], version: dict[str, Any], _versions: list[dict[str, Any]]) -> None:
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
        st.dataframe(pd.DataFrame(table), hide_index=True)
    else:
        st.caption(t("suspects.all_right"))
