from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api_people import SignIn
from loramill.api.app import create_app
from loramill.api.services import AppServices, services_of
from loramill.auth.rate_limits import RateLimits
from loramill.database import Database
from loramill.errors import ConfigError
from loramill.settings import Settings


def test_the_process_of_the_api_never_imports_torch() -> None:
    script = (
        "import sys, loramill.api.app, loramill.tasks.worker\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'matplotlib', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_production_starts_with_no_weak_secret(settings: Settings) -> None:
    weak = settings.model_copy(update={"environment": "production", "jwt_secret": None})
    with pytest.raises(ConfigError, match="JWT_SECRET"), TestClient(create_app(weak)):
        pass


def test_health_says_what_is_missing(client: TestClient, services: AppServices) -> None:
    assert client.get("/health/ready").status_code == 200
    services.broker.client.shutdown(nosave=True)
    try:
        reply = client.get("/health/ready")
        assert (reply.status_code, reply.json()["detail"]) == (503, "The queue does not answer.")
        assert client.get("/health/live").status_code == 200
        assert "loramill_queue_up 0.0" in client.get("/metrics").text
    finally:
        services.broker.ensure_running()
    assert "loramill_queue_up 1.0" in client.get("/metrics").text


def test_a_job_is_accepted_while_the_queue_is_away(client: TestClient, sign_in: SignIn, services: AppServices) -> None:
    """The row is there; a worker's reaper sends the message later."""
    services.broker.client.shutdown(nosave=True)
    try:
        started = time.monotonic()
        body = {"config": {"data": {"dataset_name": "sample:movie_reviews"}}}
        reply = client.post("/train", json=body, headers=sign_in("ada"))
        assert reply.status_code == 202, reply.text
        assert time.monotonic() - started < 10
    finally:
        services.broker.ensure_running()


def test_what_is_not_there_is_a_problem_too(client: TestClient) -> None:
    for method, path, status, code in (
        ("GET", "/nothing", 404, "not_found"),
        ("PUT", "/login", 405, "method_not_allowed"),
        ("POST", "/login", 422, "request_invalid"),
    ):
        reply = client.request(method, path)
        assert (reply.status_code, reply.json()["code"]) == (status, code)
        assert reply.headers["content-type"] == "application/problem+json"


def test_a_body_that_is_no_json_is_the_field_at_fault(client: TestClient) -> None:
    response = client.post("/login", content=b"{bad", headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert [error["key"] for error in response.json()["errors"]] == ["body"]


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"username": ' + b"9" * 5000 + b"}"])
def test_a_body_that_no_reader_of_json_takes_is_the_field_at_fault(body: bytes, client: TestClient) -> None:
    response = client.post("/login", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["errors"]) == (422, [{"key": "body", "message": "cannot be read"}])


def test_a_reply_is_json_even_where_the_request_is_not_quite(client: TestClient, sign_in: SignIn) -> None:
    """Browsers read no NaN, which Python writes and reads."""
    headers = {**sign_in("ada"), "content-type": "application/json"}
    body = b'{"config": {"lora": {"r": NaN}, "training": {"learning_rate": 1e999}}}'
    reply = client.post("/train", content=body, headers=headers)
    values = {error["key"]: error["value"] for error in json.loads(reply.content, parse_constant=pytest.fail)["errors"]}
    assert (reply.status_code, values) == (422, {"lora.r": "NaN", "training.learning_rate": "Infinity"})


def test_where_the_database_is_stays_in_the_log(
    client: TestClient, services: AppServices, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = Database("postgresql://ada@127.0.0.1:1/hidden")
    app: Any = client.app
    monkeypatch.setitem(app.dependency_overrides, services_of, lambda: replace(services, database=away))
    for path in ("/metrics", "/health/ready"):
        caplog.clear()
        reply = client.get(path)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert "127.0.0.1" not in reply.text and "hidden" not in reply.text
        assert "127.0.0.1/hidden does not answer" in caplog.text
    away.close()


def test_metrics_are_for_anyone_until_there_is_a_key(
    client: TestClient, sign_in: SignIn, services: AppServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/metrics").status_code == 200
    app: Any = client.app
    closed = services.settings.model_copy(update={"metrics_key": SecretStr("the key")})
    monkeypatch.setitem(app.dependency_overrides, services_of, lambda: replace(services, settings=closed))
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer another key"}, 401),
        ({"Authorization": "Bearer the ké".encode()}, 401),
        (sign_in("ada"), 403),
        (sign_in("root"), 200),
        ({"Authorization": "Bearer the key"}, 200),
    ):
        assert client.get("/metrics", headers=headers).status_code == status, headers


def test_metrics_count_as_requests(client: TestClient, services: AppServices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.auth, "limits", RateLimits(request="2/minute"))
    assert [client.get("/metrics").status_code for _ in range(3)] == [200, 200, 429]
