"""The whole table: every route, every role, what is one's own, somebody else's, or gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api_people import AddExperiment, SignIn

OPEN = "open"
SIGNED_IN = "signed in"
SCOPED = "scoped"
OWNER = "owner"
ADMIN = "admin"

CONFIG = {"experiment_name": "first", "data": {"dataset_name": "sample:movie_reviews"}}

TABLE: dict[tuple[str, str], tuple[str, dict[str, Any] | None, int]] = {
    ("POST", "/login"): (OPEN, {"username": "nobody", "password": "x"}, 401),
    ("POST", "/token/refresh"): (OPEN, {"refresh_token": "x"}, 401),
    ("POST", "/logout"): (OPEN, {"refresh_token": "x"}, 204),
    ("GET", "/health/live"): (OPEN, None, 200),
    ("GET", "/health/ready"): (OPEN, None, 200),
    ("GET", "/metrics"): (OPEN, None, 200),
    ("POST", "/train"): (SIGNED_IN, {"config": CONFIG}, 202),
    ("GET", "/tasks"): (SIGNED_IN, None, 200),
    ("GET", "/config/presets"): (SIGNED_IN, None, 200),
    ("POST", "/config/check"): (SIGNED_IN, {"config": CONFIG}, 200),
    ("POST", "/config/plan"): (SIGNED_IN, {"config": {"lora": {"r": 0}}}, 422),
    ("GET", "/users/me"): (SIGNED_IN, None, 200),
    ("POST", "/users/me/password"): (SIGNED_IN, {"password": "x", "new_password": "long enough password"}, 403),
    ("GET", "/experiments"): (SCOPED, None, 200),
    ("GET", "/experiments/stats"): (SCOPED, None, 200),
    ("GET", "/models"): (SCOPED, None, 200),
    ("GET", "/experiments/compare"): (OWNER, None, 200),
    ("GET", "/task/{task_id}"): (OWNER, None, 200),
    ("GET", "/task/{task_id}/events"): (OWNER, None, 200),
    ("POST", "/task/{task_id}/cancel"): (OWNER, None, 202),
    ("POST", "/task/{task_id}/resume"): (OWNER, None, 409),
    ("GET", "/experiments/{experiment_id}"): (OWNER, None, 200),
    ("PATCH", "/experiments/{experiment_id}"): (OWNER, {"notes": "good"}, 200),
    ("DELETE", "/experiments/{experiment_id}"): (OWNER, None, 204),
    ("GET", "/experiments/{experiment_id}/config"): (OWNER, None, 200),
    ("GET", "/experiments/{experiment_id}/metrics"): (OWNER, None, 200),
    ("GET", "/experiments/{experiment_id}/curves"): (OWNER, None, 200),
    ("GET", "/experiments/{experiment_id}/suspects"): (OWNER, None, 200),
    ("GET", "/experiments/{experiment_id}/logs"): (OWNER, None, 200),
    ("GET", "/experiments/{experiment_id}/report"): (OWNER, None, 200),
    ("GET", "/experiments/{experiment_id}/artifacts"): (OWNER, None, 200),
    ("GET", "/experiments/{experiment_id}/artifacts/{path}"): (OWNER, None, 200),
    ("GET", "/models/{experiment_id}/history"): (OWNER, None, 200),
    ("POST", "/models/{experiment_id}/stage"): (OWNER, {"stage": "staging"}, 200),
    ("POST", "/datasets"): (SIGNED_IN, None, 201),
    ("GET", "/datasets"): (SIGNED_IN, None, 200),
    ("GET", "/datasets/{dataset_id}"): (OWNER, None, 200),
    ("DELETE", "/datasets/{dataset_id}"): (OWNER, None, 204),
    ("GET", "/datasets/{dataset_id}/versions"): (OWNER, None, 200),
    ("POST", "/datasets/{dataset_id}/versions"): (OWNER, None, 201),
    ("POST", "/datasets/{dataset_id}/validate"): (OWNER, {}, 200),
    ("POST", "/datasets/{dataset_id}/clean"): (OWNER, {}, 201),
    ("GET", "/datasets/{dataset_id}/report"): (OWNER, None, 200),
    ("GET", "/datasets/{dataset_id}/analysis"): (OWNER, None, 200),
    ("GET", "/datasets/{dataset_id}/rows"): (OWNER, None, 200),
    ("GET", "/datasets/{dataset_id}/diff"): (OWNER, None, 200),
    ("POST", "/sweeps"): (SIGNED_IN, {"config": CONFIG, "space": {"lora.r": [4, 8]}}, 202),
    ("GET", "/sweeps"): (SIGNED_IN, None, 200),
    ("GET", "/sweeps/{sweep_id}"): (OWNER, None, 200),
    ("GET", "/sweeps/{sweep_id}/trials"): (OWNER, None, 200),
    ("GET", "/sweeps/{sweep_id}/report"): (OWNER, None, 200),
    ("GET", "/sweeps/{sweep_id}/events"): (OWNER, None, 200),
    ("POST", "/sweeps/{sweep_id}/cancel"): (OWNER, None, 202),
    ("POST", "/sweeps/{sweep_id}/resume"): (OWNER, None, 202),
    ("GET", "/users"): (ADMIN, None, 200),
    ("POST", "/users"): (ADMIN, {"username": "new", "password": "long enough password"}, 201),
    ("PATCH", "/users/{user_id}"): (ADMIN, {"disabled": False}, 200),
    ("PATCH", "/users/{user_id}/quota"): (ADMIN, {"max_daily_submits": 500}, 200),
    ("GET", "/audit/logs"): (ADMIN, None, 200),
}
"""Route -> who may call it, a body, and the status for who may."""

FILE = b"text,label\n" + b"".join(b"a text of number %d,%d\n" % (row, row % 2) for row in range(20))
QUERY: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/datasets"): {"filename": "rows.csv"},
    ("POST", "/datasets/{dataset_id}/versions"): {"filename": "rows.csv"},
    ("GET", "/datasets/{dataset_id}/diff"): {"before": 1, "after": 1},
}
"""What a route has to be asked with; a POST with a query gets the file."""

WHO = ("nobody", "stranger", "owner", "root", "gone")

EXPECTED = {
    OPEN: dict.fromkeys(WHO),
    SIGNED_IN: {"nobody": 401, "stranger": None, "owner": None, "root": None, "gone": None},
    SCOPED: {"nobody": 401, "stranger": 403, "owner": 403, "root": None, "gone": None},
    OWNER: {"nobody": 401, "stranger": 403, "owner": None, "root": None, "gone": 404},
    ADMIN: {"nobody": 401, "stranger": 403, "owner": 403, "root": None, "gone": None},
}
"""Access -> caller -> status; None means the route's own. ``gone`` is an administrator, and the thing was deleted."""


def test_every_route_is_in_the_table(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    routes = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    assert routes == set(TABLE)


@pytest.mark.parametrize(("method", "path"), TABLE, ids=lambda part: str(part))
def test_route(
    method: str,
    path: str,
    client: TestClient,
    sign_in: SignIn,
    add_experiment: AddExperiment,
    add_dataset: Callable[[str], str],
    add_sweep: Callable[[str], str],
) -> None:
    access, body, good = TABLE[method, path]
    headers = {who: sign_in(who) for who in ("stranger", "owner", "root")}
    headers |= {"nobody": {}, "gone": headers["root"]}
    me = client.get("/users/me", headers=headers["owner"]).json()["user_id"]
    for who in WHO:
        add = {"datasets": add_dataset, "sweeps": add_sweep}.get(path.split("/")[1], add_experiment)
        mine = add(me) if who != "gone" else "deleted_20260101_000000"
        names = {"task_id": mine, "experiment_id": mine, "dataset_id": mine, "sweep_id": mine, "user_id": me}
        url = path.format(path="final_model/adapter.bin", **names)
        query = {**QUERY.get((method, path), {})} | (
            {"ids": [mine, add_experiment(me)]} if path.endswith("/compare") else {}
        )
        sent: dict[str, Any] = {"content": FILE} if method == "POST" and (method, path) in QUERY else {"json": body}
        reply = client.request(method, url, headers=headers[who], params=query, **sent)
        expected = EXPECTED[access][who] or good
        assert reply.status_code == expected, (who, reply.text)
        if expected >= 400:
            assert reply.headers["content-type"] == "application/problem+json"
            assert reply.json()["code"]
        if (method, path) == ("POST", "/users") and expected == 201:
            body = {**(body or {}), "username": f"after_{who}"}
