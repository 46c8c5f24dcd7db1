"""A typed client of the REST API, for scripts and for the web page. It speaks HTTP and nothing else.

with Client("http://127.0.0.1:8000") as client:
    client.sign_in("ada", password)
    task = client.train({"experiment_name": "first", "data": {"dataset_name": "sample:movie_reviews"}})
    for event in client.follow(task.task_id):
        ...
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import httpx

from loramill.api_session import ApiError, ApiSession, Json
from loramill.errors import LoramillError

ENDED = ("SUCCESS", "FAILURE", "REVOKED")
RECONNECT_SECONDS = 1.0
AWAY_SECONDS = 120.0
"""How long an API may take to come back, while it is restarted, before who follows a run gives up."""

LOOK_SECONDS = 0.2
UPLOAD_SECONDS = 600.0

Found = TypeVar("Found")


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


class Client(ApiSession):
    """Everything that a signed-in person can ask the API for."""

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
        """The task once it has ended, also when the API is restarted meanwhile. Raises ``TimeoutError``."""
        return _wait(lambda: self.task(task_id), lambda task: task.status, f"Task {task_id}", seconds)

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
                for event_id, event in self.events(f"/task/{task_id}/events", after=last):
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
        return self.authorised("GET", f"/experiments/{experiment_id}/artifacts/{path}").content

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
        """The sweep once it has ended, as ``wait``."""
        return _wait(lambda: self.sweep(sweep_id), lambda sweep: sweep["status"], f"Sweep {sweep_id}", seconds)

    def change_password(self, password: str, new_password: str) -> None:
        """Change one's own password; every sign-in ends, this one too. Raises ``ApiError`` (403): it is another one."""
        self.request("POST", "/users/me/password", json={"password": password, "new_password": new_password})

    def _of_version(self, dataset_id: str, what: str, version: int | None) -> Any:
        query = {} if version is None else {"version": version}
        return self.request("GET", f"/datasets/{dataset_id}/{what}", params=query, timeout=UPLOAD_SECONDS)


def _wait(look: Callable[[], Found], status: Callable[[Found], str], name: str, seconds: float) -> Found:
    until = time.monotonic() + seconds
    last = "away"
    while True:
        try:
            if (last := status(found := look())) in ENDED:
                return found
        except LoramillError as error:
            if not _is_away(error):
                raise
        if time.monotonic() > until:
            raise TimeoutError(f"{name} is {last} after {seconds:g} s.")
        time.sleep(LOOK_SECONDS)


def _is_away(error: Exception) -> bool:
    """Whether the API does not answer, or a proxy says so in its place, rather than that it refused."""
    return not isinstance(error, ApiError) or error.status in (502, 503, 504)
