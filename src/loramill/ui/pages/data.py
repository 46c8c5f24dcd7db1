"""Data sets: upload one, see what is wrong with it row by row, clean it, compare its versions, train on it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import streamlit as st

from loramill.ui.dataset_views import analysis, findings, history, rows, suspects
from loramill.ui.failures import attempt
from loramill.ui.formats import number, size, when
from loramill.ui.parts import (
    Tile,
    choose_by_address,
    draw_tabs,
    empty_place,
    heading_with_badges,
    note_box,
    page_title,
    show_chosen,
    tiles,
)
from loramill.ui.places import go
from loramill.ui.plain import visible
from loramill.ui.services import api, settings
from loramill.ui.texts import t

FORMATS = ["csv", "tsv", "jsonl", "parquet", "gz", "zst", "zip", "tar", "tgz"]
"""What the API takes; an archive may hold a folder of them."""
MAX_UPLOAD_MEGABYTES = 512
"""The page's server holds a file in memory until the API has it."""


def draw() -> None:
    page_title(t("data.title"), t("data.about"))
    found = api().datasets(limit=200)["items"]
    with st.expander(t("data.upload"), expanded=not found, icon=":material/upload_file:"):
        upload_form(found)
    if not found:
        empty_place(t("data.none"), t("data.none_about"))
        return
    names = {item["dataset_id"]: name_dataset(item) for item in found}
    chosen_id = choose_by_address(t("data.choose"), names, "dataset", drops="version")
    chosen = next(item for item in found if item["dataset_id"] == chosen_id)
    versions = api().dataset_versions(chosen["dataset_id"])
    with st.container(border=True):
        version = head(chosen, versions)
        draw_tabs(
            {
                "findings": lambda: findings(chosen, version),
                "rows": lambda: rows(chosen, version),
                "analysis": lambda: analysis(chosen, version),
                "versions": lambda: history(chosen, versions),
                "suspects": lambda: suspects(version),
            }
        )


def name_dataset(dataset: dict[str, Any]) -> str:
    """Two may have the same name, so the id stands there as well."""
    rows = t("data.choice", rows=number(dataset["newest"]["rows"]))
    return f"{visible(dataset['name'], 60)} · {rows} · {dataset['dataset_id']}"


def upload_form(found: list[dict[str, Any]]) -> None:
    with st.form("upload_form", clear_on_submit=True, border=False):
        about = t("data.file_about", megabytes=min(MAX_UPLOAD_MEGABYTES, settings().upload_limit_mb))
        file = st.file_uploader(f"{t('data.file')}: {about}", FORMATS, key="file")
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
    st.rerun()


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
    show_chosen("version_choice", now)
    middle.selectbox(t("data.version"), numbers, key="version_choice", on_change=_version_chosen)
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
    labels = report["label_counts"]
    balance = t("data.balanced") if report.get("is_balanced") else t("data.imbalanced")
    splits = ", ".join(f"{name} {number(split['rows'])}" for name, split in version["splits"].items())
    tiles(
        [
            Tile(t("data.rows"), number(version["rows"]), splits),
            Tile(t("data.labels"), number(len(labels)), balance)
            if labels
            else Tile(t("data.labels"), t("data.numbers")),
            Tile(t("data.ratio"), number(report.get("imbalance_ratio") if labels else None, 2), t("data.ratio_about")),
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
