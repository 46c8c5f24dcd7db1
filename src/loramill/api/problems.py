"""Errors as replies: RFC 9457 ``application/problem+json``, with a code and every wrong field at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from loramill.api.services import services_of
from loramill.auth.audit_log import Actor
from loramill.errors import (
    AuthenticationError,
    DatabaseUnavailableError,
    InternalError,
    LoramillError,
    PermissionDeniedError,
    Problem,
    QuotaExceededError,
    RateLimitedError,
    RequestInvalidError,
)
from loramill.problem_json import MEDIA_TYPE, problem, problem_response, status_of

REFUSALS = (AuthenticationError, PermissionDeniedError, RateLimitedError, QuotaExceededError)
"""What the audit log remembers wherever it happens; a wrong request is no attempt at anything."""

log = logging.getLogger(__name__)


def install_problems(app: FastAPI) -> None:
    """Have the app answer every error as a problem."""
    app.add_exception_handler(LoramillError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    describe_problems(app)


def describe_problems(app: FastAPI) -> None:
    """Have the app's description name the media type of its errors, for which FastAPI takes that of the answer."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        for response in _error_replies(schema):
            response["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemReply"}}}
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _error_replies(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in schema["paths"].values():
        for operation in methods.values():
            yield from (reply for status, reply in operation["responses"].items() if status >= "400")


async def _expected(request: Request, error: Exception) -> Response:
    if not isinstance(error, LoramillError):
        raise error
    if isinstance(error, REFUSALS) and not error.audited:
        await run_in_threadpool(_record_refusal, request, error)
    if status_of(error) >= 500:
        log.error("%s %s failed: %s", request.method, request.url.path, error)
    if isinstance(error, DatabaseUnavailableError):  # where it is concerns nobody who only asks
        error = DatabaseUnavailableError("The database cannot be used.", fix="The service's log says why.")
    return problem_response(error)


def _record_refusal(request: Request, error: LoramillError) -> None:
    actor = getattr(request.state, "actor", None) or Actor(None, None, client_address(request))
    route = getattr(request.scope.get("route"), "path", request.url.path)
    services_of(request).auth.audit.record_refusal(actor, f"{request.method} {route}", request.url.path, error)


def client_address(request: Request) -> str:
    """Where a request comes from; behind a proxy, uvicorn has put the address that a trusted one names."""
    return request.client.host if request.client else "unknown"


async def _invalid_request(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    problems = [
        Problem(_field(detail["loc"]), None, detail["msg"].removeprefix("Value error, ")) for detail in error.errors()
    ]
    return problem_response(RequestInvalidError(problems, fix="See /docs."))


def _field(location: Sequence[int | str]) -> str:
    """``config.lora.r`` of a body, ``limit`` of a query: the first part says where, which the rest makes clear.

    Of a body that is no JSON, the second part is the character where reading stopped.
    """
    where, *path = location
    return str(where) if not path or isinstance(path[0], int) else ".".join(map(str, path))


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 400:  # JSON that cannot be read: nested too deeply, a number of thousands of digits
        return await _invalid_request(request, RequestValidationError([{"loc": ("body",), "msg": "cannot be read"}]))
    codes = {404: "not_found", 405: "method_not_allowed"}
    body = {"code": codes.get(error.status_code, "http_error"), "detail": error.detail}
    return problem(error.status_code, body, error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    """A defect: its traceback is in the log, and not in the reply."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem_response(InternalError("The service failed.", fix="Its log says why."))
