"""The outermost layer of the service: who may come in, how much they may send, how long it took."""

from __future__ import annotations

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loramill.errors import LoramillError, RequestTooLargeError
from loramill.inference.access import Access, Request
from loramill.inference.kserve import error_member
from loramill.inference.telemetry import Telemetry
from loramill.problem_json import problem_response


class Edge:
    """ASGI middleware around the routes.

    Args:
        body_bytes: larger bodies are refused, whether or not they say their length.
    """

    def __init__(self, app: ASGIApp, *, access: Access, telemetry: Telemetry, body_bytes: int) -> None:
        self._app = app
        self._access = access
        self._telemetry = telemetry
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._pass(scope, receive, noting_send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._telemetry.count_request(route, status, time.perf_counter() - start)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            await self._access.check(Request(scope["method"], scope["path"], headers))
            body = await self._read_body(headers, receive)
        except LoramillError as error:
            await problem_response(error, error_member(scope["path"], str(error)))(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read_body(self, headers: dict[str, str], receive: Receive) -> bytes:
        length = headers.get("content-length", "0")
        chunks, size, more = [], 0, True
        if length.isascii() and length.isdigit() and int(length) > self._body_bytes:
            raise self._too_large()
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > self._body_bytes:
                raise self._too_large()
            chunks.append(chunk)
            more = message.get("more_body", False)
        return b"".join(chunks)

    def _too_large(self) -> RequestTooLargeError:
        return RequestTooLargeError(f"The body has more than {self._body_bytes} bytes.", fix="Send fewer texts.")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, then whatever comes after it."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message
