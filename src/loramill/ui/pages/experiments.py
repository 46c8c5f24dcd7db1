"""Every run: filtered, sorted, counted, compared, deleted, exported. The address holds the view."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import datetime, time
from typing import Any

import streamlit as st

from loramill.client import ENDED
from loramill.ui.experiment_table import draw_table
from loramill.ui.failures import attempt
from loramill.ui.formats import duration, number, reader_zone, score
from loramill.ui.parts import Tile, empty_place, page_title, tiles
from loramill.ui.places import go
from loramill.ui.services import api, me
from loramill.ui.texts import t

PAGE = 50
MOST_ROWS = 1000
"""Of one reply of the API."""

MAX_COMPARED = 20
STATUSES = ["PENDING", "STARTED", "PROGRESS", *ENDED]
ORDERS = ["created_at", "eval_accuracy", "train_runtime", "name", "eval_f1_macro", "eval_loss"]
CSV_FIELDS = (
    "id",
    "name",
    "status",
    "model_name",
    "dataset_name",
    "created_at",
    "train_runtime",
    "eval_accuracy",
    "tags",
)
PAGES_BEFORE = "experiment_pages"
VIEW = "experiment_view"


def draw() -> None:
    page_title(t("experiments.title"), t("experiments.about"))
    query = filters()
    totals = api().request("GET", "/experiments/stats", params=query)
    if not totals["total"]:
        nothing(query)
        return
    statistics(totals)
    left, right = st.columns([1.6, 1], vertical_alignment="center")
    with right:
        order = sorting()
    show_page(left.container(horizontal=True, vertical_alignment="center"), query, order, totals["total"])


def filters() -> dict[str, Any]:
    """The filter as the API takes it; every field is in the address."""
    first = st.columns([2.2, 1.2, 1.6, 1.1, 1.1], vertical_alignment="bottom")
    name = first[0].text_input(t("filter.name"), key="name", bind="query-params", icon=":material/search:")
    status = first[1].selectbox(
        t("filter.status"), STATUSES, index=None, key="status", bind="query-params", placeholder=t("filter.any"),
        format_func=lambda status: t(f"status.{status}"),
    )  # fmt: skip
    model = first[2].text_input(t("filter.model"), key="model", bind="query-params")
    accuracy = first[3].number_input(
        t("filter.min_accuracy"), 0.0, 1.0, None, 0.01, key="min_accuracy", bind="query-params", placeholder="0"
    )
    with first[4]:
        more = st.popover(t("filter.more"), icon=":material/tune:", width="stretch")
    with more:
        rest = more_filters()
    chosen = {"name": name, "status": status, "model_name": model, "min_accuracy": accuracy, **rest}
    return {key: value for key, value in chosen.items() if value not in (None, "")}


def more_filters() -> dict[str, Any]:
    data = st.text_input(t("filter.data"), key="data", bind="query-params")
    tag = st.text_input(t("filter.tag"), key="tag", bind="query-params")
    sweep = st.text_input(t("filter.sweep"), key="sweep", bind="query-params")
    runtime = st.number_input(t("filter.max_runtime"), 0.0, None, None, 10.0, key="max_runtime", bind="query-params")
    since = st.date_input(t("filter.since"), None, key="since", bind="query-params")
    until = st.date_input(t("filter.until"), None, key="until", bind="query-params")
    archived = st.toggle(t("filter.archived"), key="archived", bind="query-params")
    mine = st.toggle(t("filter.mine"), key="mine", bind="query-params") if me().is_admin else True
    zone = reader_zone()
    return {
        "dataset_name": data,
        "tag": tag,
        "sweep_id": sweep,
        "max_runtime": runtime,
        "start_date": datetime.combine(since, time.min, zone).isoformat() if since else None,
        "end_date": datetime.combine(until, time.max, zone).isoformat() if until else None,
        "archived": "true" if archived else None,
        "owner": "me" if mine else None,
    }


def nothing(query: dict[str, Any]) -> None:
    if query.keys() - {"owner"}:
        empty_place(t("experiments.no_match"), t("experiments.no_match_about"))
        return
    empty_place(t("experiments.none"), t("experiments.none_about"))
    if st.button(t("nav.train"), type="primary", icon=":material/model_training:", key="to_train"):
        go("train")


def statistics(totals: dict[str, Any]) -> None:
    counts = totals["by_status"]
    running = counts.get("STARTED", 0) + counts.get("PROGRESS", 0) + counts.get("PENDING", 0)
    tiles(
        [
            Tile(t("stats.total"), number(totals["total"])),
            Tile(t("stats.finished"), number(counts.get("SUCCESS", 0))),
            Tile(t("stats.moving"), number(running)),
            Tile(t("stats.failed"), number(counts.get("FAILURE", 0))),
            Tile(
                t("stats.best"), score(totals["best_accuracy"]), t("stats.mean", value=score(totals["mean_accuracy"]))
            ),
            Tile(
                t("stats.time"),
                duration(totals["total_runtime"]),
                t("stats.mean", value=duration(totals["mean_runtime"])),
            ),
        ]
    )


def sorting() -> dict[str, Any]:
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
        key = st.selectbox(
            t("sort.by"), ORDERS, key="sort", bind="query-params", accept_new_options=True, width=170,
            format_func=lambda order: t(f"sort.{order}") if order in ORDERS else order, label_visibility="collapsed",
        )  # fmt: skip
        ascending = st.toggle(t("sort.ascending"), key="ascending", bind="query-params")
    return {"sort_by": key or ORDERS[0], "desc": "false" if ascending else "true"}


def show_page(bar: Any, query: dict[str, Any], order: dict[str, Any], total: int) -> None:
    view = str((query, order))
    if st.session_state.get(VIEW) not in (None, view):  # another view begins at its first page
        _drop_place()
        st.session_state[PAGES_BEFORE] = []
    st.session_state[VIEW] = view
    cursor = st.query_params.get("cursor")
    page = ask_page(query, order, PAGE, cursor)
    extra = [order["sort_by"]] if order["sort_by"] not in ORDERS[:4] else []
    chosen = draw_table(page["items"], key=f"experiments_{cursor}", extra=extra, owners=me().is_admin)
    actions(bar, chosen, query, order)
    turn_pages(cursor, page["next_cursor"], total, len(chosen), lambda number: cursor_of(number, query, order))


def ask_page(query: dict[str, Any], order: dict[str, Any], limit: int, cursor: str | None) -> dict[str, Any]:
    place = {"cursor": cursor} if cursor else {}
    page: dict[str, Any] = api().request("GET", "/experiments", params={**query, **order, "limit": limit, **place})
    return page


def cursor_of(number: int, query: dict[str, Any], order: dict[str, Any]) -> str | None:
    """Where a page begins, counted from the first one: a reload forgets the way that was gone."""
    cursor, ahead = None, (number - 1) * PAGE
    while ahead > 0:
        cursor = ask_page(query, order, min(ahead, MOST_ROWS), cursor)["next_cursor"]
        ahead -= MOST_ROWS
    return cursor


def actions(bar: Any, chosen: list[str], query: dict[str, Any], order: dict[str, Any]) -> None:
    """What can be done with the ticked ones."""
    if bar.button(t("action.open"), icon=":material/open_in_full:", disabled=len(chosen) != 1, key="open"):
        go("experiment", id=chosen[0])
    enough = 2 <= len(chosen) <= MAX_COMPARED
    if bar.button(t("action.compare"), icon=":material/compare_arrows:", disabled=not enough, key="compare"):
        go("compare", ids=",".join(chosen))
    archive = bar.button(t("action.archive"), icon=":material/archive:", disabled=not chosen, key="archive")
    if archive and attempt(lambda: change_all(chosen, {"archived": True})):
        st.rerun()
    if bar.button(t("action.delete"), icon=":material/delete:", disabled=not chosen, key="delete"):
        confirm_deletion(chosen)
    bar.download_button(
        t("action.export_csv"), lambda: as_csv(query, order), file_name="experiments.csv", mime="text/csv",
        icon=":material/download:", key="export", on_click="ignore",
    )  # fmt: skip


def change_all(ids: list[str], change: dict[str, Any]) -> None:
    for experiment_id in ids:
        api().request("PATCH", f"/experiments/{experiment_id}", json=change)


def confirm_deletion(ids: list[str]) -> None:
    """Ask before files go; ``ids`` are shown as plain text."""

    @st.dialog(t("delete.title", count=len(ids)))
    def ask() -> None:
        st.write(t("delete.about"))
        st.code("\n".join(ids), language=None)
        sure = st.button(t("action.delete"), type="primary", icon=":material/delete:", key="really_delete")
        if sure and attempt(lambda: delete_all(ids)):
            st.rerun()

    ask()


def delete_all(ids: list[str]) -> None:
    for experiment_id in ids:
        api().request("DELETE", f"/experiments/{experiment_id}")


def as_csv(query: dict[str, Any], order: dict[str, Any]) -> str:
    """All that passes the filter; cells that a spreadsheet would run as formulas are quoted."""
    sheet = io.StringIO()
    writer = csv.writer(sheet)
    writer.writerow(CSV_FIELDS)
    cursor: str | None = None
    while True:
        page = ask_page(query, order, MOST_ROWS, cursor)
        writer.writerows([_cell(item[name]) for name in CSV_FIELDS] for item in page["items"])
        if page["next_cursor"] is None:
            return sheet.getvalue()
        cursor = page["next_cursor"]


def _cell(value: Any) -> Any:
    text = ", ".join(value) if isinstance(value, list) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in "=+-@\t\r" and text else text


def turn_pages(
    cursor: str | None, following: str | None, total: int, chosen: int, begins: Callable[[int], str | None]
) -> None:
    """Forward and back; the address has the page and its cursor, the session the way that was gone.

    Args:
        begins: the cursor of a page by its number, for those that the session does not know.
    """
    before: list[str | None] = st.session_state.setdefault(PAGES_BEFORE, [])
    asked = st.query_params.get("page", "")
    number = int(asked) if cursor and asked.isdecimal() and asked != "0" else 1
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(t("experiments.chosen", count=chosen) if chosen else t("experiments.choose"))
        st.space("stretch")
        if st.button(t("page.back"), icon=":material/chevron_left:", disabled=cursor is None, key="page_back"):
            _turn_to(number - 1, before.pop() if before else begins(number - 1))
        if st.button(t("page.next"), icon=":material/chevron_right:", disabled=following is None, key="page_next"):
            before.append(cursor)
            _turn_to(number + 1, following)
        st.caption(t("page.of", page=number, pages=-(-total // PAGE)), width="content")


def _turn_to(number: int, cursor: str | None) -> None:
    if cursor is None:
        _drop_place()
    else:
        st.query_params.update(cursor=cursor, page=str(number))
    st.rerun()


def _drop_place() -> None:
    for name in ("cursor", "page"):
        st.query_params.pop(name, None)
