"""What a run leaves behind while it goes on: its row, its log, its events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from structlog.typing import FilteringBoundLogger

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import ConflictError, LoramillError, StorageError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Status
from loramill.experiments.record_file import save_record
from loramill.experiments.report import write_report
from loramill.experiments.store import ExperimentStore
from loramill.experiments.trackers import Trackers
from loramill.jobs.events import describe_event
from loramill.jobs.lease import Claim, record_checkpoint
from loramill.jobs.retries import fail_or_retry, with_code
from loramill.process_ends import process_name

EventSink = Callable[[dict[str, Any]], None]

PROGRESS_SECONDS = 2.0
"""Between two writes of a run's progress to its row; its events are written at once."""


class RunRecord:
    """The record of one experiment; every change of the row is a transaction of its own.

    Args:
        claim: the right by which a worker runs it, which fences every write; ``None`` at the shell, where a run
            belongs to whoever started it.

    Attributes:
        is_cancelled: the service was asked to end a run of the shell. Read from the row every ``PROGRESS_SECONDS``.
    """

    def __init__(
        self,
        database: Database,
        folder: ExperimentFolder,
        log: FilteringBoundLogger,
        on_event: EventSink,
        claim: Claim | None = None,
    ) -> None:
        self._database, self._folder, self._log, self._on_event = database, folder, log, on_event
        self._claim = claim
        self._attempt = claim.attempt if claim else None
        self._progress_at = -PROGRESS_SECONDS
        self.guard: Callable[[Session], None] = lambda _session: None
        self._trackers: Trackers | None = None
        self.is_cancelled = False

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Session]:
        """A transaction that changes nothing when ``guard`` says that the work is somebody else's by now."""
        with self._database.transaction() as session:
            self.guard(session)
            yield session

    def report_to_trackers(self, config: ExperimentConfig) -> None:
        """Send the events that follow, and the final numbers, to the tools of ``training.report_to`` as well.

        Raises:
            NotFoundError: a tracker's package is not installed.
        """
        if names := config.training.report_to:
            self._trackers = Trackers(names, self._folder, config.model_dump(mode="json"), self._log.warning)

    def emit(self, event: dict[str, Any]) -> None:
        """An event goes to ``events.jsonl``, as a sentence to ``logs.txt``, to the row, and to the caller."""
        stamped = {"time": time.time(), **event}
        self._folder.append_event(stamped)
        if sentence := describe_event(event):
            (self._log.warning if event["type"] == "warning" else self._log.info)(sentence)
        try:
            self._note(event)
        except (SQLAlchemyError, LoramillError) as error:  # the run goes on; who may write is checked at its end
            self._log.warning("Progress was not recorded", reason=str(error))
        if self._trackers:
            self._trackers.on_event(stamped)
        self._on_event(stamped)

    def started(self, *, resumed: bool) -> None:
        if self._claim is None:
            with self._changing() as session:
                store = ExperimentStore(session)
                if resumed:
                    store.mark_resumed(self._folder.id)
                store.mark_started(self._folder.id, process=process_name())
        self.emit({"type": "status", "status": "STARTED"})

    def finished(self, metrics: Mapping[str, Any]) -> None:
        """A final model was saved and its metrics are known.

        Raises:
            ConflictError: another attempt took the work over.
        """
        data = self._folder.read_data()
        with self._changing() as session:
            store = ExperimentStore(session)
            store.mark_finished(self._folder.id, metrics, attempt=self._attempt)
            for role in ("train", "eval"):
                store.link_data(self._folder.id, role, [data[role]])
        self.emit({"type": "status", "status": "SUCCESS"})
        self._close(metrics, Status.SUCCESS)

    def stopped(self, **why: str) -> None:
        """Ended before its end, with a checkpoint to go on from; ``code`` and ``message`` say why, if nobody asked."""
        with self._changing() as session:
            ExperimentStore(session).mark_revoked(self._folder.id, attempt=self._attempt)
        self.emit({"type": "status", "status": "REVOKED", **why})
        self._close({}, Status.REVOKED)

    def interrupted(self) -> None:
        """Cut short by a person, wherever it was, even while its end was being recorded."""
        try:
            self.stopped()
        except ConflictError:  # the row says already how it ended; the files beside it may not
            self._write_files()

    def failed(self, error: Exception) -> None:
        """Ended in an error; a worker's job waits for another attempt when the error is of a kind that can pass."""
        try:
            self._record_failure(with_code(error))
        except (SQLAlchemyError, StorageError) as unrecorded:  # a full disk must not hide the error that it caused
            self._log.warning("The failure was not recorded", reason=str(unrecorded))

    def _record_failure(self, known: LoramillError) -> None:
        with self._changing() as session:
            if self._claim is not None:
                status = fail_or_retry(session, self._claim, known)
            else:
                status = Status.FAILURE
                ExperimentStore(session).mark_failed(self._folder.id, known.code, str(known))
        if status is not None:
            self.emit({"type": "status", "status": status, "code": known.code, "message": str(known)})
            self._close({}, status)

    def _close(self, metrics: Mapping[str, Any], status: str) -> None:
        if self._trackers:
            self._trackers.finish(metrics, status=status)
        self._write_files()

    def _write_files(self) -> None:
        """The page of the run and its ``record.json``; how a run ended does not hang on them."""
        try:
            write_report(self._folder)
            save_record(self._database, self._folder.path.parent, self._folder.id)
        except (SQLAlchemyError, LoramillError) as error:
            self._log.warning("The report was not written", reason=str(error))

    def _note(self, event: Mapping[str, Any]) -> None:
        """What the row says of a worker's run while it goes on, and what it says to one at the shell."""
        if event["type"] == "checkpoint" and self._claim is not None:
            with self._changing() as session:
                record_checkpoint(session, self._claim)
        now = time.monotonic()
        if event["type"] not in ("log", "eval") or now - self._progress_at < PROGRESS_SECONDS:
            return
        self._progress_at = now
        if self._claim is None:
            with self._database.reading() as session:
                self.is_cancelled = ExperimentStore(session).get(self._folder.id).cancel_requested
        else:
            progress = {key: value for key, value in event.items() if key != "type"}
            with self._changing() as session:
                ExperimentStore(session).mark_progress(self._folder.id, progress, attempt=self._attempt)
