"""Errors as HTTP replies: RFC 9457 ``application/problem+json``. Nothing else of the service knows a status code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from loramill.errors import (
    AuthenticationError,
    ConfigError,
    ConflictError,
    EmptyTextError,
    LoramillError,
    ModelError,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
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
    EmptyTextError: 422,
    RequestInvalidError: 422,
    ModelError: 422,
    RateLimitedError: 429,
    UnavailableError: 503,
}
"""The nearest class in an error's own line of ancestors decides; everything else is 500."""

MEDIA_TYPE = "application/problem+json"


def problem_response(error: LoramillError) -> Response:
    """An expected error as a reply."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    problems = [problem.as_dict() for problem in getattr(error, "problems", ())]
    headers = {}
    if isinstance(error, RateLimitedError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = "1"
    if isinstance(error, AuthenticationError):
        headers["WWW-Authenticate"] = "Bearer"
    body = {"code": error.code, "detail": error.message, "fix": error.fix, "errors": problems}
    return problem(status, body, headers)


def problem(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A reply of this media type; empty members are left out."""
    code = body["code"]
    document = {"type": f"urn:loramill:problem:{code}", "title": code.replace("_", " "), "status": status}
    document |= {key: value for key, value in body.items() if value}
    content = json.dumps(document, ensure_ascii=False, default=str).encode()
    return Response(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)
