"""The outermost layer: when a request arrived, and how large it may be."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loramill.errors import RequestTooLargeError
from loramill.problem_json import problem_response

MAX_BODY_BYTES = 2**20
UPLOADS = re.compile(r"/datasets(/[^/]+/versions)?")
"""Paths whose body is a file."""


class RequestLimits:
    """ASGI middleware around the routes. The arrival is noted before anything waits for a thread or a lock."""

    def __init__(self, app: ASGIApp, *, upload_bytes: int) -> None:
        self._app = app
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["received_at"] = datetime.now(UTC)
        is_upload = scope["method"] == "POST" and UPLOADS.fullmatch(scope["path"])
        most = self._upload_bytes if is_upload else MAX_BODY_BYTES
        body = _CountedBody(scope, receive, send, most)
        if body.declared_bytes <= most:
            await self._app(scope, body.receive, body.send)
        if body.is_too_large:
            refusal = RequestTooLargeError(f"The body has more than {most:,} bytes.")
            await problem_response(refusal)(scope, receive, send)


class _CountedBody:
    """A body that ends early when it is too large, and takes the reply with it that the app would give then."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        self._most = most
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        self.declared_bytes = int(declared) if declared.isdigit() else 0
        self._received_bytes = 0
        self._receive, self._send = receive, send

    @property
    def is_too_large(self) -> bool:
        return max(self.declared_bytes, self._received_bytes) > self._most

    async def receive(self) -> Message:
        message = await self._receive()
        self._received_bytes += len(message.get("body", b""))
        return {"type": "http.disconnect"} if self.is_too_large else message

    async def send(self, message: Message) -> None:
        if not self.is_too_large:
            await self._send(message)
