"""Errors as replies: RFC 9457 ``application/problem+json``, with a code and every wrong field at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

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
    ConfigError,
    ConflictError,
    DataError,
    DiskFullError,
    InternalError,
    LoramillError,
    NotFoundError,
    PermissionDeniedError,
    Problem,
    QuotaExceededError,
    RateLimitedError,
    RequestInvalidError,
    RequestTooLargeError,
    UnavailableError,
)
from loramill.inference.problems import problem

STATUS: Mapping[type[LoramillError], int] = {
    AuthenticationError: 401,
    PermissionDeniedError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    RequestTooLargeError: 413,
    ConfigError: 422,
    DataError: 422,
    RequestInvalidError: 422,
    RateLimitedError: 429,
    QuotaExceededError: 429,
    UnavailableError: 503,
    DiskFullError: 507,
}
"""The nearest class in an error's own line of ancestors decides; everything else is 500."""

QUOTA_RETRY_SECONDS = 60

REFUSALS = (AuthenticationError, PermissionDeniedError, RateLimitedError, QuotaExceededError)
"""What the audit log remembers wherever it happens; a wrong request is no attempt at anything."""

log = logging.getLogger(__name__)


def install_problems(app: FastAPI) -> None:
    """Have the app answer every error as a problem."""
    app.add_exception_handler(LoramillError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def problem_response(error: LoramillError) -> Response:
    """An expected error as a reply."""
    headers = {}
    if isinstance(error, RateLimitedError):
        headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, QuotaExceededError):
        headers["Retry-After"] = str(QUOTA_RETRY_SECONDS)
    elif isinstance(error, AuthenticationError):
        headers["WWW-Authenticate"] = "Bearer"
    errors = [_shown(found) for found in getattr(error, "problems", ())]
    body = {"code": error.code, "detail": error.message, "fix": error.fix.strip(), "errors": errors}
    return problem(_status_of(error), body, headers)


def _status_of(error: LoramillError) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def _shown(found: Problem) -> dict[str, object]:
    return {name: value for name, value in found.as_dict().items() if value is not None}


async def _expected(request: Request, error: Exception) -> Response:
    if not isinstance(error, LoramillError):
        raise error
    if isinstance(error, REFUSALS) and not error.audited:
        await run_in_threadpool(_record_refusal, request, error)
    if _status_of(error) == 500:
        log.error("%s %s failed: %s", request.method, request.url.path, error)
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
    problems = [Problem(_field(detail["loc"]), None, detail["msg"]) for detail in error.errors()]
    return problem_response(RequestInvalidError(problems, fix="See /docs."))


def _field(location: Sequence[int | str]) -> str:
    """``config.lora.r`` of a body, ``limit`` of a query: the first part says where, which the rest makes clear."""
    return ".".join(str(part) for part in location[1:]) or str(location[0])


async def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    codes = {400: "request_invalid", 404: "not_found", 405: "method_not_allowed"}
    body = {"code": codes.get(error.status_code, "http_error"), "detail": error.detail}
    return problem(error.status_code, body, error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    """A defect: its traceback is in the log, and not in the reply."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem_response(InternalError("The service failed.", fix="Its log says why."))
