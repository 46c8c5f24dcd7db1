"""The outermost layer: when a request arrived, and how large it may be."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loramill.api.problems import problem_response
from loramill.errors import RequestTooLargeError

MAX_BODY_BYTES = 2**20


class RequestLimits:
    """ASGI middleware around the routes. The arrival is noted before anything waits for a thread or a lock."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["received_at"] = datetime.now(UTC)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
                raise _too_large()
            await self._app(scope, _counted(receive), send)
        except RequestTooLargeError as error:
            await problem_response(error)(scope, receive, send)


def _counted(receive: Receive) -> Receive:
    """``receive`` that stops when a body that did not say its length becomes too large."""
    size = 0

    async def receive_counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise _too_large()
        return message

    return receive_counted


def _too_large() -> RequestTooLargeError:
    return RequestTooLargeError(f"The body has more than {MAX_BODY_BYTES:,} bytes.")
