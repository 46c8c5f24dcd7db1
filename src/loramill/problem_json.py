"""Errors as HTTP replies: RFC 9457 ``application/problem+json``. Nothing else of the services knows a status code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from loramill.errors import (
    AuthenticationError,
    ConfigError,
    ConflictError,
    DataError,
    DiskFullError,
    EmptyTextError,
    LoramillError,
    ModelError,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
    Problem,
    QuotaExceededError,
    RateLimitedError,
    RequestInvalidError,
    RequestTooLargeError,
    TextTooLongError,
    TooManyTextsError,
    UnavailableError,
)

STATUS: Mapping[type[LoramillError], int] = {
    AuthenticationError: 401,
    PermissionDeniedError: 403,
    NotFoundError: 404,
    ModelNotFoundError: 404,
    ConflictError: 409,
    RequestTooLargeError: 413,
    TextTooLongError: 413,
    TooManyTextsError: 413,
    ConfigError: 422,
    DataError: 422,
    EmptyTextError: 422,
    ModelError: 422,
    RequestInvalidError: 422,
    RateLimitedError: 429,
    QuotaExceededError: 429,
    UnavailableError: 503,
    DiskFullError: 507,
}
"""The nearest class in an error's own line of ancestors decides; everything else is 500."""

MEDIA_TYPE = "application/problem+json"
QUOTA_RETRY_SECONDS = 60


def problem_response(error: LoramillError, more: Mapping[str, str] | None = None) -> Response:
    """An expected error as a reply.

    Args:
        more: further members of the document.
    """
    errors = [_shown(found) for found in getattr(error, "problems", ())]
    body = {"code": error.code, "detail": error.message, "fix": error.fix.strip(), "errors": errors}
    return problem(status_of(error), {**body, **(more or {})}, _headers(error))


def status_of(error: LoramillError) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A reply of this media type; empty members are left out."""
    code = body["code"]
    document = {"type": f"urn:loramill:problem:{code}", "title": code.replace("_", " "), "status": status}
    document |= {key: value for key, value in body.items() if value}
    plain = json.loads(json.dumps(document, default=str), parse_constant=str)  # JSON has no number for NaN or Infinity
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    content = text.encode(errors="backslashreplace")  # half of a surrogate pair, as JSON spells it
    return Response(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _headers(error: LoramillError) -> dict[str, str]:
    if isinstance(error, RateLimitedError):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, QuotaExceededError):
        return {"Retry-After": str(QUOTA_RETRY_SECONDS)}
    if isinstance(error, UnavailableError):
        return {"Retry-After": "1"}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, AuthenticationError) else {}


def _shown(found: Problem) -> dict[str, object]:
    return {name: value for name, value in found.as_dict().items() if value is not None}
