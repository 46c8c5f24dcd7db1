"""For administrators: people and what they may use, the audit log, and how the service is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import Any

import pandas as pd
import streamlit as st

from loramill.api_session import ApiError
from loramill.errors import LoramillError
from loramill.ui.failures import attempt, guarded
from loramill.ui.formats import moment, number, reader_zone
from loramill.ui.parts import Tile, draw_tabs, empty_place, note_box, page_title, section, table_height, tiles
from loramill.ui.plain import visible
from loramill.ui.service_words import in_own_words
from loramill.ui.services import api, inference_health, me, settings
from loramill.ui.texts import t

LIMITS = ("max_concurrent_jobs", "max_daily_submits", "max_stored_experiments", "max_stored_bytes")
HEALTH_SECONDS = 5.0
GAUGE = re.compile(r'^loramill_(\w+)(?:\{status="(\w+)"\})? ([-+.\deE]+)$', re.MULTILINE)


def draw() -> None:
    page_title(t("admin.title"), t("admin.about"))
    if not me().is_admin:
        empty_place(t("admin.not_allowed"), t("admin.not_allowed_about"))
        return
    draw_tabs({"users": users, "audit": audit, "health": health})


def users() -> None:
    people = api().request("GET", "/users")
    table = [
        {
            t("column.user"): visible(person["username"]),
            t("column.id"): person["user_id"],
            t("column.role"): t(f"role.{person['role']}"),
            t("column.state"): t("user.disabled") if person["disabled"] else t("user.enabled"),
            t("column.made"): moment(person["created_at"]),
            **{t(f"quota.{limit}"): person[limit] for limit in LIMITS},
        }
        for person in people
    ]
    made = st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm")
    st.dataframe(
        pd.DataFrame(table),
        hide_index=True,
        height=table_height(len(table), 10),
        column_config={t("column.made"): made},
        placeholder=t("quota.default"),
        alt=t("tab.users"),
    )
    st.caption(t("quota.empty_means_default"))
    left, right = st.columns(2)
    with left.container(border=True):
        new_user(len(people))
    with right.container(border=True):
        change_user({person["user_id"]: person for person in people})


def new_user(people: int) -> None:
    """A form that is empty again once there is one user more, and stays as it is when that is refused."""
    section(t("user.new"))
    with st.form(f"new_user_{people}", border=False):
        username = st.text_input(t("sign_in.username"), autocomplete="off")
        password = st.text_input(
            t("sign_in.password"), type="password", autocomplete="new-password", help=t("user.password_about")
        )
        role = st.segmented_control(
            t("user.role"),
            ["user", "admin"],
            default="user",
            format_func=lambda name: t(f"role.{name}"),
            required=True,
        )
        pressed = st.form_submit_button(t("action.create"), type="primary", icon=":material/person_add:")
    if pressed:
        body = {"username": username.strip(), "password": password, "role": role}
        if attempt(lambda: api().request("POST", "/users", json=body)):
            st.rerun()


def change_user(people: dict[str, dict[str, Any]]) -> None:
    section(t("user.change"))
    chosen = st.selectbox(
        t("user.who"),
        list(people),
        format_func=lambda key: visible(f"{people[key]['username']} ({key})"),
        key="person",
    )
    person = people[chosen]
    with st.form(f"change_{chosen}", border=False):
        role = st.segmented_control(
            t("user.role"),
            ["user", "admin"],
            default=person["role"],
            format_func=lambda name: t(f"role.{name}"),
            required=True,
        )
        disabled = st.toggle(t("user.is_disabled"), person["disabled"])
        columns = st.columns(2)
        limits = {
            limit: columns[place % 2].number_input(
                t(f"quota.{limit}"), 0, None, person[limit], 1, placeholder=t("quota.default")
            )
            for place, limit in enumerate(LIMITS)
        }
        pressed = st.form_submit_button(t("action.save"), type="primary", icon=":material/save:")
    if pressed and attempt(lambda: save_user(person, role, disabled, limits)):
        st.rerun()


def save_user(person: dict[str, Any], role: str | None, disabled: bool, limits: dict[str, Any]) -> None:
    """Only what differs is sent: a change of role or state ends the user's sign-ins."""
    wanted = {"role": role, "disabled": disabled}
    changed = {name: value for name, value in wanted.items() if value != person[name]}
    if changed:
        api().request("PATCH", f"/users/{person['user_id']}", json=changed)
    quota = {name: value for name, value in limits.items() if value != person[name]}
    if quota:
        api().request("PATCH", f"/users/{person['user_id']}/quota", json=quota)


def audit() -> None:
    columns = st.columns([1.2, 1, 1, 1, 1])
    zone = reader_zone()
    user = columns[0].text_input(t("audit.user"), key="audit_user", placeholder="u1")
    role = columns[1].selectbox(
        t("user.role"), ["user", "admin"], index=None, key="audit_role", placeholder=t("filter.any"),
        format_func=lambda name: t(f"role.{name}"),
    )  # fmt: skip
    since = columns[2].date_input(t("filter.since"), None, key="audit_since")
    until = columns[3].date_input(t("filter.until"), None, key="audit_until")
    limit = columns[4].number_input(t("audit.limit"), 1, 1000, 100, 100, key="audit_limit")
    query = {
        "user_id": user or None,
        "role": role,
        "start_time": datetime.combine(since, time.min, zone).timestamp() if since else None,
        "end_time": datetime.combine(until, time.max, zone).timestamp() if until else None,
        "limit": limit,
    }
    rows = api().request("GET", "/audit/logs", params={key: value for key, value in query.items() if value is not None})
    if not rows:
        empty_place(t("experiments.no_match"), t("experiments.no_match_about"))
        return
    table = pd.DataFrame([_entry(row) for row in rows])
    time_column = st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", width="medium")
    st.dataframe(
        table,
        hide_index=True,
        height=table_height(len(table)),
        column_config={
            t("column.time"): time_column,
            t("column.target"): st.column_config.TextColumn(width="large"),
        },
        alt=t("tab.audit"),
    )
    st.caption(t("audit.about"))


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """One line of the audit log; its actions and results are codes, which stay as they are."""
    shown = {name: visible(value if value is not None else "") for name, value in row.items()}
    return {
        "#": row["sequence"],
        t("column.time"): moment(datetime.fromtimestamp(row["time"], UTC).isoformat()),
        t("column.user"): shown["user_id"],
        t("column.role"): shown["role"],
        t("column.action"): shown["action"],
        t("column.target"): shown["target"],
        t("column.result"): shown["result"],
        t("column.address"): shown["address"],
    }


def health() -> None:
    st.fragment(guarded(show_health), run_every=HEALTH_SECONDS)()


def show_health() -> None:
    ready, model = service_states()
    found = {(name, status): float(value) for name, status, value in GAUGE.findall(api().request("GET", "/metrics"))}
    jobs = {status: int(count) for (name, status), count in found.items() if name == "jobs"}
    running = jobs.get("STARTED", 0) + jobs.get("PROGRESS", 0)
    tiles(
        [
            Tile(t("health.api"), t("health.ok") if not ready else t("health.away"), settings().effective_api_url),
            Tile(
                t("health.inference"), t("health.ok") if model else t("health.away"), model or t("health.start_serve")
            ),
            Tile(t("health.queue"), number(found.get(("queue_length", ""))), t("health.waiting")),
            Tile(t("health.jobs"), number(running), t("health.running")),
            Tile(t("status.PENDING"), number(jobs.get("PENDING", 0))),
            Tile(t("status.FAILURE"), number(jobs.get("FAILURE", 0))),
        ]
    )
    if ready:
        note_box(ready, "bad")
    st.caption(t("health.about", seconds=HEALTH_SECONDS))


def service_states() -> tuple[str, str]:
    """What the API lacks (nothing when it is ready), and the model that the inference service gives by default."""
    try:
        api().request("GET", "/health/ready")
        lacking = ""
    except ApiError as error:
        lacking = in_own_words(error.message)
    try:
        found = inference_health()
        model = visible(found.get("experiment_id") or t("health.no_model"), 60)
    except LoramillError:
        model = ""
    return lacking, model
