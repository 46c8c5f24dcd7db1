"""What a run leaves behind while it goes on: its row, its log, its events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from structlog.typing import FilteringBoundLogger

from loramill.database import Database
from loramill.errors import LoramillError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.store import ExperimentStore
from loramill.jobs.events import describe_event

EventSink = Callable[[dict[str, Any]], None]


class RunRecord:
    """The record of one experiment; every change of the row is a transaction of its own."""

    def __init__(
        self, database: Database, folder: ExperimentFolder, log: FilteringBoundLogger, on_event: EventSink
    ) -> None:
        self._database, self._folder, self._log, self._on_event = database, folder, log, on_event

    def emit(self, event: dict[str, Any]) -> None:
        """An event goes to ``events.jsonl``, as a sentence to ``logs.txt``, and to the caller."""
        stamped = {"time": time.time(), **event}
        self._folder.append_event(stamped)
        if sentence := describe_event(event):
            (self._log.warning if event["type"] == "warning" else self._log.info)(sentence)
        self._on_event(stamped)

    def started(self, *, resumed: bool) -> None:
        with self._database.transaction() as session:
            store = ExperimentStore(session)
            if resumed:
                store.mark_resumed(self._folder.id)
            store.mark_started(self._folder.id)
        self.emit({"type": "status", "status": "STARTED"})

    def finished(self, metrics: Mapping[str, Any]) -> None:
        """A final model was saved and its metrics are known."""
        data = self._folder.read_data()
        with self._database.transaction() as session:
            store = ExperimentStore(session)
            store.mark_finished(self._folder.id, metrics)
            for role in ("train", "eval"):
                store.link_data(self._folder.id, role, [data[role]])
        self.emit({"type": "status", "status": "SUCCESS"})

    def stopped(self) -> None:
        """Ended before its end, with a checkpoint to go on from."""
        with self._database.transaction() as session:
            ExperimentStore(session).mark_revoked(self._folder.id)
        self.emit({"type": "status", "status": "REVOKED"})

    def failed(self, error: Exception) -> None:
        known = isinstance(error, LoramillError)
        code = error.code if isinstance(error, LoramillError) else "internal_error"
        message = str(error) if known else f"{type(error).__name__}: {error}"
        with self._database.transaction() as session:
            ExperimentStore(session).mark_failed(self._folder.id, code, message)
        self.emit({"type": "status", "status": "FAILURE", "code": code, "message": message})
