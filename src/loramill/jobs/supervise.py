"""The worker's side of a job: claim it, let a child process train, and see to it that the row tells the truth.

The worker holds the lease and never imports torch. Whatever happens to one of the two, the work ends with it: the
worker kills the child when the job was cancelled or its lease is lost, and the child dies when the worker is gone.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from loramill.database import Database
from loramill.errors import LoramillError, TimeLimitError, WorkerLostError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import FINISHED, Status
from loramill.experiments.record_file import save_records
from loramill.jobs.children import Child, Children
from loramill.jobs.gpus import GpuSlots
from loramill.jobs.job_tables import find_job, results_of
from loramill.jobs.lease import Claim, LeaseKeeper, LeaseState, claim_next, give_back, revoke
from loramill.jobs.retries import fail_or_retry
from loramill.jobs.usage import record_stored_bytes
from loramill.settings import Settings

LOOK_SECONDS = 0.2
STOP_SECONDS = 5.0
"""What a child gets to save a checkpoint when it is asked to stop. With a lease's renewal, and what it takes to kill a
tree (``GONE_SECONDS``), it is less than ten."""

LAST_WORDS_SECONDS = 60.0

WORKERS_SECRETS = ("JWT_SECRET", "LORAMILL_AUDIT_KEY", "LORAMILL_ADMIN_PASSWORD", "LORAMILL_METRICS_KEY", "REDIS_URL")
"""Variables that a child has no use for."""

log = logging.getLogger(__name__)


class Ended(StrEnum):
    """Why a worker stops watching a child."""

    BY_ITSELF = "by itself"
    CANCELLED = "cancelled"
    LOST = "lease lost"
    OVER_TIME = "over time"
    DRAINING = "worker shuts down"


class Supervisor:
    """Works on one job after the other.

    Args:
        worker: name of this worker, as the row shows it.
        draining: whether the worker shuts down; its job is given back then, and goes on elsewhere.
        command: what a child runs (see ``children``).
        ready: children that wait for work.
        gpus: that jobs are spread over.
        on_ended: told how an attempt ended, and after how many seconds.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        worker: str,
        draining: Callable[[], bool],
        command: tuple[str, ...] = (sys.executable, "-m", "loramill.jobs.child"),
        ready: int = 0,
        gpus: GpuSlots | None = None,
        on_ended: Callable[[str, float], None] = lambda _outcome, _seconds: None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._worker = worker
        self._draining = draining
        self._gpus = gpus or GpuSlots(())
        self._on_ended = on_ended
        ours = {"LORAMILL_HOME": str(settings.home.absolute()), "DATABASE_URL": database.url}
        inherited = {name: value for name, value in os.environ.items() if name not in WORKERS_SECRETS}
        self.children = Children(command, {**inherited, **ours}, ready=ready)

    @contextlib.contextmanager
    def ready_children(self) -> Iterator[None]:
        """Children wait for work as long as the block lasts."""
        self.children.prepare()
        try:
            yield
        finally:
            self.children.close()

    def do_next(self, heard_of: str) -> None:
        """Do the job that is first in line, if any waits: one message too many changes nothing."""
        if self._draining():
            return
        with self._database.transaction() as session:
            claimed = claim_next(session, heard_of, worker=self._worker)
        if claimed is None:
            return
        with self._gpus.taken() as gpu, self.children.working({**assignment(claimed), "gpu": gpu}) as child:
            log.info("Attempt %d at %s begins", claimed.attempt, claimed.experiment_id)
            with LeaseKeeper(self._database, claimed) as keeper:
                reason = self._watch(child, keeper)
                if keeper.was_refused and self._ended_by(claimed):
                    reason = self._hear_out(child)
                exit_code = child.end(patience=0.0 if reason == Ended.LOST else STOP_SECONDS)
        log.info("Attempt %d at %s ended: %s, exit code %s", claimed.attempt, claimed.experiment_id, reason, exit_code)
        self._settle(claimed, reason, exit_code)
        self._measure(claimed)
        self._on_ended(self._outcome(claimed), time.monotonic() - claimed.claimed_at)
        if not self._draining():
            self.children.prepare()

    def _watch(self, child: Child, keeper: LeaseKeeper) -> Ended:
        """Wait until the child ends, or has to."""
        limit = self._settings.job_seconds
        until = math.inf if limit is None else time.monotonic() + limit
        while child.process.poll() is None:
            if self._draining():
                return Ended.DRAINING
            if keeper.state != LeaseState.HELD:
                return Ended.CANCELLED if keeper.state == LeaseState.CANCELLED else Ended.LOST
            if time.monotonic() > until:
                return Ended.OVER_TIME
            _wait(child, LOOK_SECONDS)
        return Ended.DRAINING if self._draining() else Ended.BY_ITSELF

    def _hear_out(self, child: Child) -> Ended:
        """A child that has recorded how the job ended writes its last event and its report."""
        until = time.monotonic() + LAST_WORDS_SECONDS
        while child.process.poll() is None and time.monotonic() < until:
            _wait(child, LOOK_SECONDS)
        return Ended.BY_ITSELF

    def _outcome(self, claimed: Claim) -> str:
        """What the row says after an attempt: SUCCESS, FAILURE, REVOKED, or PENDING for another one."""
        try:
            with self._database.reading() as session:
                row = find_job(session, claimed.kind, claimed.experiment_id)
        except SQLAlchemyError:
            return "UNKNOWN"
        return row.status if row is not None and row.attempt == claimed.attempt else "LOST"

    def _ended_by(self, claimed: Claim) -> bool:
        """Whether this attempt ended the job: then its child has only its last event to write."""
        with self._database.reading() as session:
            row = find_job(session, claimed.kind, claimed.experiment_id)
        return row is not None and row.attempt == claimed.attempt and row.status in FINISHED

    def _settle(self, claimed: Claim, reason: Ended, exit_code: int) -> None:
        """Record how an attempt ended, unless its child did; without the database the reaper does, a lease later."""
        try:
            with self._database.transaction() as session:
                if reason == Ended.CANCELLED:
                    status = Status.REVOKED if revoke(session, claimed) else None
                elif reason == Ended.DRAINING:
                    status = give_back(session, claimed)
                else:
                    status = fail_or_retry(session, claimed, self._error(reason, exit_code))
        except SQLAlchemyError as error:
            log.warning("The end of %s was not recorded: %s", claimed.experiment_id, error)
            return
        if status is None and exit_code != 0:
            status = self._untold_end(claimed)
        if status is not None:
            self._tell(claimed, status)
            self._save_records(claimed)

    def _untold_end(self, claimed: Claim) -> Status | None:
        """How the job ended, when its child was killed between writing that to the row and to the events."""
        try:
            with self._database.reading() as session:
                row = find_job(session, claimed.kind, claimed.experiment_id)
            events = self._folder(claimed).read_events()
        except (SQLAlchemyError, LoramillError):
            return None
        if row is None or row.attempt != claimed.attempt or row.status not in FINISHED:
            return None
        told = [event["status"] for event in events if event["type"] == "status"]
        return None if told[-1:] == [row.status] else Status(row.status)

    def _measure(self, claimed: Claim) -> None:
        """Let the owner's quota count what the job left on disk."""
        try:
            record_stored_bytes(self._database, self._settings.results_folder, claimed)
        except SQLAlchemyError as error:
            log.warning("The size of %s was not recorded: %s", claimed.experiment_id, error)

    def _error(self, reason: Ended, exit_code: int) -> LoramillError:
        if reason == Ended.OVER_TIME:
            return TimeLimitError(
                f"The job ran for more than {self._settings.job_seconds:g} s.", fix="Train less, or resume it."
            )
        return WorkerLostError(f"The training process ended with exit code {exit_code}.")

    def _tell(self, claimed: Claim, status: Status) -> None:
        event = {"time": time.time(), "type": "status", "status": status, "attempt": claimed.attempt}
        try:
            self._folder(claimed).append_event(event)
        except LoramillError as error:
            log.warning("%s", error)

    def _save_records(self, claimed: Claim) -> None:
        """Let the files of its runs say how they ended, as their child did not."""
        try:
            save_records(self._database, self._settings.results_folder, claimed.experiment_id)
        except (SQLAlchemyError, LoramillError) as error:
            log.warning("The record of %s was not saved: %s", claimed.experiment_id, error)

    def _folder(self, claimed: Claim) -> ExperimentFolder:
        """Raises ``NotFoundError``."""
        return ExperimentFolder.open(results_of(self._settings.results_folder, claimed.kind), claimed.experiment_id)


def _wait(child: Child, seconds: float) -> None:
    child.keep_alive()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.process.wait(seconds)


def assignment(claimed: Claim) -> dict[str, Any]:
    """What a child is told."""
    return {
        "kind": claimed.kind,
        "job": claimed.experiment_id,
        "attempt": claimed.attempt,
        "resume": claimed.resume,
    }
