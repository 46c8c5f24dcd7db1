"""Signed-in HTTP to the API: tokens that renew themselves, and errors with names."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from loramill.errors import LoramillError, UnavailableError

Json = dict[str, Any]


class ApiError(LoramillError):
    """The service refused, or failed.

    Attributes:
        status: HTTP status.
        problem_code: the service's own code, such as ``config_invalid``.
        problems: every wrong field: ``{"key", "message", ...}``.
    """

    code = "api_error"

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem_code = str(problem.get("code", "unknown"))
        self.problems: list[Json] = list(problem.get("errors", ()))
        super().__init__(str(problem.get("detail") or self.problem_code), fix=str(problem.get("fix", "")))


class ApiSession:
    """One person's connection. Access tokens are renewed by themselves.

    Args:
        url: of the API, such as ``http://127.0.0.1:8000``.
        timeout: seconds for a request.
        on_behalf_of: address of the person whom a server asks for, which the audit log and the limits of the API
            then see; only an API that trusts this machine as a proxy listens to it.
    """

    def __init__(self, url: str, *, timeout: float = 30.0, on_behalf_of: str | None = None) -> None:
        forwarded = {"X-Forwarded-For": on_behalf_of} if on_behalf_of else {}
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=forwarded)
        self._refresh_token: str | None = None
        self._renewing = threading.Lock()

    @property
    def authorization(self) -> str:
        """The header that says who asks, for other services of the same deployment; empty when nobody signed in."""
        return str(self._http.headers.get("Authorization", ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def sign_in(self, username: str, password: str) -> Json:
        """Raises ``ApiError`` (``login_failed``, ``rate_limited``)."""
        return self._keep(self._send("POST", "/login", json={"username": username, "password": password}))

    def sign_out(self) -> None:
        if self._refresh_token is not None:
            self._send("POST", "/logout", json={"refresh_token": self._refresh_token})
        self._refresh_token = None
        self._http.headers.pop("Authorization", None)

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Any route; the reply's JSON, or its text. Raises ``ApiError``, ``UnavailableError``."""
        reply = self.authorised(method, path, **options)
        is_json = reply.headers.get("content-type", "").startswith("application/json")
        return reply.json() if is_json and reply.content else reply.text

    def authorised(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The same, as the whole reply."""
        outdated = self.authorization
        try:
            return self._send(method, path, **options)
        except ApiError as error:
            if error.status != 401 or self._refresh_token is None:
                raise
        self._renew(outdated)
        return self._send(method, path, **options)

    def events(self, path: str, *, after: str) -> Iterator[tuple[str, Json]]:
        """(id, event) of a stream's events behind one, to its end.

        Raises:
            ApiError: the service refused; tokens are not renewed here.
            httpx.TransportError: the connection broke.
        """
        with self._http.stream("GET", path, headers={"Last-Event-ID": after}) as reply:
            if reply.is_error:
                reply.read()
                raise _api_error(reply)
            parts: dict[str, str] = {}
            for line in reply.iter_lines():
                name, _, value = line.partition(": ")
                parts[name] = value
                if not line:  # the end of an event, or of a comment that keeps the connection alive
                    if "data" in parts:
                        yield parts["id"], json.loads(parts["data"])
                    parts = {}

    def _renew(self, outdated: str) -> None:
        """Once for all threads that were refused the same token: a refresh token works a single time."""
        with self._renewing:
            if self.authorization == outdated:
                self._keep(self._send("POST", "/token/refresh", json={"refresh_token": self._refresh_token}))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            reply = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise UnavailableError(f"The API does not answer: {error}.", fix="Start it: loramill up") from error
        if reply.is_error:
            raise _api_error(reply)
        return reply

    def _keep(self, reply: httpx.Response) -> Json:
        signed_in: Json = reply.json()
        self._refresh_token = signed_in["refresh_token"]
        self._http.headers["Authorization"] = f"Bearer {signed_in['token']}"
        return signed_in


def _api_error(reply: httpx.Response) -> ApiError:
    try:
        problem = reply.json()
    except ValueError:
        problem = {}
    return ApiError(reply.status_code, problem if isinstance(problem, dict) else {})
