"""A typed client of the REST API, for scripts and for the web page. It speaks HTTP and nothing else.

with Client("http://127.0.0.1:8000") as client:
    client.sign_in("ada", password)
    task = client.train({"experiment_name": "first", "data": {"dataset_name": "sample:movie_reviews"}})
    for event in client.follow(task.task_id):
        ...
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from loramill.errors import LoramillError, UnavailableError

ENDED = ("SUCCESS", "FAILURE", "REVOKED")
RECONNECT_SECONDS = 1.0
AWAY_SECONDS = 120.0
"""How long an API may take to come back, while it is restarted, before who follows a run gives up."""

UPLOAD_SECONDS = 600.0

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


@dataclass(frozen=True)
class Task:
    """A job as the service sees it. Times are ISO 8601; ``result`` is there once it succeeded."""

    task_id: str
    experiment_id: str
    status: str = "PENDING"
    owner: str | None = None
    attempt: int = 0
    created_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    cancel_requested: bool = False
    progress: Json | None = None
    result: Json | None = None
    error: Json | None = None

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> Task:
        """A reply as a task; members that a newer service adds are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in reply.items() if name in known})

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


class Client:
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

    def __enter__(self) -> Client:
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

    def train(self, config: Mapping[str, Any], *, priority: int = 0, idempotency_key: str | None = None) -> Task:
        """Submit a run. Repeating a call that got no answer is safe with a key of one's own."""
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        body = {"config": dict(config), "priority": priority}
        return Task.of(self.request("POST", "/train", json=body, headers=headers))

    def task(self, task_id: str) -> Task:
        return Task.of(self.request("GET", f"/task/{task_id}"))

    def tasks(self, **query: Any) -> list[Task]:
        """The newest tasks; ``status`` and ``limit`` narrow them."""
        return [Task.of(item) for item in self.request("GET", "/tasks", params=query)["items"]]

    def cancel(self, task_id: str) -> bool:
        """Whether there was anything to end."""
        return bool(self.request("POST", f"/task/{task_id}/cancel")["accepted"])

    def resume(self, task_id: str) -> Task:
        return Task.of(self.request("POST", f"/task/{task_id}/resume"))

    def wait(self, task_id: str, *, seconds: float) -> Task:
        """The task once it has ended. Raises ``TimeoutError``."""
        until = time.monotonic() + seconds
        while not (task := self.task(task_id)).has_ended:
            if time.monotonic() > until:
                raise TimeoutError(f"Task {task_id} is {task.status} after {seconds:g} s.")
            time.sleep(0.2)
        return task

    def follow(self, task_id: str) -> Iterator[Json]:
        """Every event of a run from its first to its last; a connection that breaks is taken up where it was.

        Raises:
            UnavailableError, ApiError: the API is away for longer than ``AWAY_SECONDS``, or refuses.
        """
        last = "0"
        away_since: float | None = None
        while True:
            try:
                self.task(task_id)  # renews the token, which a stream cannot
                away_since = None
                for event_id, event in self._stream(task_id, after=last):
                    last = event_id
                    yield event
                if self.task(task_id).has_ended:
                    return
            except (httpx.TransportError, LoramillError) as error:
                away_since = away_since or time.monotonic()
                if not _is_away(error) or time.monotonic() - away_since > AWAY_SECONDS:
                    raise
            time.sleep(RECONNECT_SECONDS)

    def experiments(self, **query: Any) -> Json:
        """A page: ``items`` and ``next_cursor``; filters and order as in the API."""
        page: Json = self.request("GET", "/experiments", params={"owner": "me", **query})
        return page

    def experiment(self, experiment_id: str) -> Json:
        summary: Json = self.request("GET", f"/experiments/{experiment_id}")
        return summary

    def artifact(self, experiment_id: str, path: str) -> bytes:
        """The content of one file of a run."""
        return self._authorised("GET", f"/experiments/{experiment_id}/artifacts/{path}").content

    def upload(self, file: Path, *, dataset_id: str | None = None, **query: Any) -> Json:
        """Send a file as a data set, or as the next version of one; ``name``, ``text_column`` ... as in the API.

        The file is sent as it is read, whatever its size.
        """
        path = "/datasets" if dataset_id is None else f"/datasets/{dataset_id}/versions"
        self.request("GET", "/users/me")  # renews the token: a file that was half sent cannot be sent again
        with file.open("rb") as content:
            options: Json = {"params": {"filename": file.name, **query}, "content": content, "timeout": UPLOAD_SECONDS}
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
            made: Json = self.request("POST", path, headers=headers, **options)
        return made

    def datasets(self, **query: Any) -> Json:
        """A page: ``items`` and ``next_cursor``; one's own, or everybody's for an administrator."""
        page: Json = self.request("GET", "/datasets", params=query)
        return page

    def dataset(self, dataset_id: str) -> Json:
        found: Json = self.request("GET", f"/datasets/{dataset_id}")
        return found

    def dataset_versions(self, dataset_id: str) -> list[Json]:
        """Every version, oldest first."""
        versions: list[Json] = self.request("GET", f"/datasets/{dataset_id}/versions")
        return versions

    def validate_dataset(self, dataset_id: str, *, version: int | None = None, rules: Json | None = None) -> Json:
        """The report of a version: totals, and every finding with its row and a fix."""
        body = {"version": version, "validation_rules": rules or {}}
        report: Json = self.request("POST", f"/datasets/{dataset_id}/validate", json=body, timeout=UPLOAD_SECONDS)
        return report

    def clean_dataset(self, dataset_id: str, *, version: int | None = None, rules: Json | None = None) -> Json:
        """A new version with rows dropped and repaired by rule."""
        body = {"version": version, "validation_rules": rules or {}}
        made: Json = self.request("POST", f"/datasets/{dataset_id}/clean", json=body, timeout=UPLOAD_SECONDS)
        return made

    def dataset_report(self, dataset_id: str, *, version: int | None = None) -> str:
        """The report as an HTML page."""
        return str(self._of_version(dataset_id, "report", version))

    def dataset_analysis(self, dataset_id: str, *, version: int | None = None) -> Json:
        """Labels, lengths, words and languages, split by split."""
        analysis: Json = self._of_version(dataset_id, "analysis", version)
        return analysis

    def dataset_rows(self, dataset_id: str, **query: Any) -> list[Json]:
        """Some rows of a version; ``version``, ``split``, ``first`` and ``count`` choose them."""
        rows: list[Json] = self.request("GET", f"/datasets/{dataset_id}/rows", params=query)
        return rows

    def diff_dataset(self, dataset_id: str, before: int, after: int, *, split: str = "train") -> Json:
        """Rows added, removed and relabelled between two versions."""
        query = {"before": before, "after": after, "split": split}
        changes: Json = self.request("GET", f"/datasets/{dataset_id}/diff", params=query, timeout=UPLOAD_SECONDS)
        return changes

    def delete_dataset(self, dataset_id: str) -> None:
        """Raises ``ApiError`` (409) while an experiment uses it."""
        self.request("DELETE", f"/datasets/{dataset_id}")

    def submit_sweep(
        self, config: Mapping[str, Any], space: Mapping[str, Any], *, idempotency_key: str | None = None, **options: Any
    ) -> str:
        """Submit a sweep; its id.

        Args:
            space: key -> list of values, or a range such as ``"1e-4..1e-2"``.
            options: ``sampler``, ``trials``, ``batch``, ``halving`` and ``priority`` as in the API.
        """
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        body = {"config": dict(config), "space": dict(space), **options}
        return str(self.request("POST", "/sweeps", json=body, headers=headers)["sweep_id"])

    def sweeps(self, **query: Any) -> Json:
        """A page: ``items`` and ``next_cursor``; one's own, or everybody's for an administrator."""
        page: Json = self.request("GET", "/sweeps", params=query)
        return page

    def sweep(self, sweep_id: str) -> Json:
        """``status``, ``trials`` by status, ``metric`` and the ``best`` trial so far."""
        found: Json = self.request("GET", f"/sweeps/{sweep_id}")
        return found

    def sweep_trials(self, sweep_id: str) -> list[Json]:
        """Every trial with its values, status and score."""
        trials: list[Json] = self.request("GET", f"/sweeps/{sweep_id}/trials")
        return trials

    def sweep_report(self, sweep_id: str) -> str:
        """The page of a sweep that has finished."""
        return str(self.request("GET", f"/sweeps/{sweep_id}/report"))

    def cancel_sweep(self, sweep_id: str) -> bool:
        """Whether there was anything to end."""
        return bool(self.request("POST", f"/sweeps/{sweep_id}/cancel")["accepted"])

    def resume_sweep(self, sweep_id: str) -> None:
        self.request("POST", f"/sweeps/{sweep_id}/resume")

    def wait_sweep(self, sweep_id: str, *, seconds: float) -> Json:
        """The sweep once it has ended. Raises ``TimeoutError``."""
        until = time.monotonic() + seconds
        while (sweep := self.sweep(sweep_id))["status"] not in ENDED:
            if time.monotonic() > until:
                raise TimeoutError(f"Sweep {sweep_id} is {sweep['status']} after {seconds:g} s.")
            time.sleep(0.2)
        return sweep

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Any route; the reply's JSON, or its text. Raises ``ApiError``, ``UnavailableError``."""
        reply = self._authorised(method, path, **options)
        is_json = reply.headers.get("content-type", "").startswith("application/json")
        return reply.json() if is_json and reply.content else reply.text

    def _of_version(self, dataset_id: str, what: str, version: int | None) -> Any:
        query = {} if version is None else {"version": version}
        return self.request("GET", f"/datasets/{dataset_id}/{what}", params=query, timeout=UPLOAD_SECONDS)

    def _authorised(self, method: str, path: str, **options: Any) -> httpx.Response:
        outdated = self.authorization
        try:
            return self._send(method, path, **options)
        except ApiError as error:
            if error.status != 401 or self._refresh_token is None:
                raise
        self._renew(outdated)
        return self._send(method, path, **options)

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

    def _stream(self, task_id: str, *, after: str) -> Iterator[tuple[str, Json]]:
        """(id, event) of the events behind one."""
        headers = {"Last-Event-ID": after}
        with self._http.stream("GET", f"/task/{task_id}/events", headers=headers) as reply:
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


def _is_away(error: Exception) -> bool:
    """Whether the API does not answer, or a proxy says so in its place, rather than that it refused."""
    return not isinstance(error, ApiError) or error.status in (502, 503, 504)


def _api_error(reply: httpx.Response) -> ApiError:
    try:
        problem = reply.json()
    except ValueError:
        problem = {}
    return ApiError(reply.status_code, problem if isinstance(problem, dict) else {})
