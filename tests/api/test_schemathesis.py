"""Schemathesis asks every route what its description allows: no server error, no status that is not described."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core import NOT_SET
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from api_people import SignIn

EXAMPLES = 6
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
LEFT_OUT = {("POST", "/config/plan"): "it trains for seconds", ("POST", "/logout"): "204 has no content type"}


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("who", ["ada", "root"])
def test_what_the_description_allows_is_answered_as_described(who: str, client: TestClient, sign_in: SignIn) -> None:
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    headers = sign_in(who)
    asked, wrong = 0, list[str]()
    for found in schema.get_all_operations():
        operation = found.ok()
        if (operation.method.upper(), operation.path) in LEFT_OUT:
            continue

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Case) -> None:
            nonlocal asked
            asked += 1
            case.validate_response(send(client, case, headers), checks=CHECKS)

        try:
            ask()
        except (Exception, FailureGroup) as error:  # everything that is wrong is to be seen at once
            wrong.append(f"{operation.label}: {error}")
    assert not wrong, "\n".join(wrong)
    assert asked > 100


def send(client: TestClient, case: Case, headers: dict[str, str]) -> httpx.Response:
    own = {name: str(value) for name, value in (case.headers or {}).items()}
    body: dict[str, Any] = {}
    if case.body is not NOT_SET:
        body = {"json": case.body} if case.media_type == "application/json" else {"content": file_of(case.body)}
    return client.request(
        case.method, case.formatted_path, params=dict(case.query or {}), headers={**own, **headers}, **body
    )


def file_of(body: object) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode(errors="replace")
