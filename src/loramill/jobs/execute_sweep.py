"""Doing an accepted sweep: the record around its trials, fenced by the claim of the whole."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import ConflictError, TimeLimitError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Experiment, Status
from loramill.jobs.job_tables import JobKind, SweepJob, results_of
from loramill.jobs.lease import Claim, finish, record_checkpoint, record_progress, require_held, revoke
from loramill.jobs.record import RunRecord
from loramill.jobs.retries import fail_or_retry, with_code
from loramill.jobs.sweep import Sweep, SweepRunner, TrialEntry, iter_unfinished
from loramill.jobs.sweep_search import close_sweep, require_best, run_search
from loramill.settings import Settings
from loramill.sweeps.space import Overrides

PROGRESS_SECONDS = 2.0
PROGRESS: tuple[str, ...] = ("experiment_id", "step", "total_steps", "epoch")


def execute_sweep(claim: Claim, *, settings: Settings, database: Database, should_stop: Callable[[], bool]) -> None:
    """Run a sweep to its end and record how it ended; one that was asked to stop is left to the worker to record.

    Raises:
        ConflictError: the claim was lost; nothing was recorded.
        LoramillError: the sweep failed; its row says so.
    """
    record = SweepRecord(database, settings, claim)
    record.emit({"type": "status", "status": Status.STARTED})
    try:
        sweep = Sweep.load(settings, claim.experiment_id)
        forget_unknown_trials(sweep, settings, database)
        runner = QueuedSweepRunner(sweep, record, settings=settings, database=database, should_stop=should_stop)
        run_search(runner, resume=claim.resume)
        if should_stop():
            return
        close_sweep(sweep, settings=settings, database=database, by=record.owner or "loramill")
        out_of_time = bool(list(iter_unfinished(sweep)))
        if not out_of_time:
            require_best(sweep)
    except Exception as error:
        record.failed(error)
        raise
    if out_of_time:
        record.out_of_time()
    else:
        record.finished(sweep)


class QueuedSweepRunner(SweepRunner):
    """Trials belong to the owner of the sweep."""

    def __init__(self, sweep: Sweep, record: SweepRecord, **wiring: Any) -> None:
        super().__init__(sweep, on_event=record.note, **wiring)
        self._record, self._owner, self._claim = record, record.owner, record.claim

    def say(self, message: str) -> None:
        self._record.emit({"type": "note", "message": message})

    def submit(
        self, config: ExperimentConfig, batch: Sequence[Overrides], owner: str | None = None
    ) -> list[TrialEntry]:
        return super().submit(config, batch, owner or self._owner)

    def _open(
        self, entry: TrialEntry, stack: contextlib.ExitStack
    ) -> tuple[ExperimentConfig, ExperimentFolder, RunRecord]:
        config, folder, record = super()._open(entry, stack)
        record.guard = lambda session: require_held(session, self._claim)
        return config, folder, record


class SweepRecord:
    """The row and the events of one sweep that a worker has claimed."""

    def __init__(self, database: Database, settings: Settings, claim: Claim) -> None:
        self.claim = claim
        self._database = database
        self._folder = ExperimentFolder(results_of(settings.results_folder, JobKind.SWEEP) / claim.experiment_id)
        self._progress_at = -PROGRESS_SECONDS
        with database.reading() as session:
            self.owner = session.scalar(select(SweepJob.owner).where(SweepJob.id == claim.experiment_id))

    def emit(self, event: dict[str, Any]) -> None:
        """An event of the sweep itself."""
        self._folder.append_event({"time": time.time(), **event})

    def note(self, event: dict[str, Any]) -> None:
        """An event of a trial: how the whole is going on."""
        with contextlib.suppress(SQLAlchemyError):  # the sweep goes on; who may write is checked at its end
            if event["type"] == "checkpoint":
                with self._database.transaction() as session:
                    record_checkpoint(session, self.claim)
            if event["type"] in ("log", "eval") and time.monotonic() - self._progress_at >= PROGRESS_SECONDS:
                self._progress_at = time.monotonic()
                kept = {key: event[key] for key in PROGRESS if key in event}
                with self._database.transaction() as session:
                    record_progress(session, self.claim, kept)
                self.emit({"type": "progress", **kept})

    def finished(self, sweep: Sweep) -> None:
        """Raises ``ConflictError`` when another attempt took the work over."""
        best = sweep.best.experiment_id if sweep.best else None
        with self._database.transaction() as session:
            finish(session, self.claim, progress={"best": best, "trials": len(sweep.trials)})
        self.emit({"type": "status", "status": Status.SUCCESS, "best": best})

    def out_of_time(self) -> None:
        """Ended by ``training.max_seconds``, with checkpoints to go on from; ``ConflictError`` as in ``finished``."""
        with self._database.transaction() as session:
            if not revoke(session, self.claim):
                raise ConflictError(f"Attempt {self.claim.attempt} at {self.claim.experiment_id!r} was lost.")
        reason = {"code": TimeLimitError.code, "message": "training.max_seconds is over; resume the sweep to go on."}
        self.emit({"type": "status", "status": Status.REVOKED, **reason})

    def failed(self, error: Exception) -> None:
        known = with_code(error)
        with self._database.transaction() as session:
            status = fail_or_retry(session, self.claim, known)
        if status is not None:
            self.emit({"type": "status", "status": status, "code": known.code, "message": str(known)})


def forget_unknown_trials(sweep: Sweep, settings: Settings, database: Database) -> None:
    """Delete trials that were recorded just before a kill, and that the sweep's own file does not know."""
    known = {trial.experiment_id for trial in sweep.trials}
    with database.transaction() as session:
        rows = session.scalars(select(Experiment).where(Experiment.sweep_id == sweep.sweep_id))
        unknown = [row for row in rows if row.id not in known]
        for row in unknown:
            session.delete(row)
    for row in unknown:
        shutil.rmtree(settings.results_folder / row.id, ignore_errors=True)
