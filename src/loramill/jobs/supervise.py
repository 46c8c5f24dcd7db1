"""The worker's side of a job: claim it, let a child process train, and see to it that the row tells the truth.

The worker holds the lease and never imports torch. Whatever happens to one of the two, the work ends with it: the
worker kills the child when the job was cancelled or its lease is lost, and the child dies when the worker is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from loramill.database import Database
from loramill.errors import LoramillError, WorkerLostError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import FINISHED, Status
from loramill.jobs.children import Child, Children
from loramill.jobs.job_tables import find_job, results_of
from loramill.jobs.lease import Claim, LeaseKeeper, LeaseState, claim, give_back, revoke
from loramill.jobs.retries import fail_or_retry
from loramill.settings import Settings

LOOK_SECONDS = 0.2
STOP_SECONDS = 5.0
"""What a child gets to save a checkpoint when it is asked to stop. With a lease's renewal it is less than ten."""

WORKERS_SECRETS = ("JWT_SECRET", "LORAMILL_AUDIT_KEY", "LORAMILL_ADMIN_PASSWORD", "REDIS_URL")
"""Variables that a child has no use for."""

log = logging.getLogger(__name__)


class Supervisor:
    """Works on one job after the other.

    Args:
        worker: name of this worker, as the row shows it.
        draining: whether the worker shuts down; its job is given back then, and goes on elsewhere.
        command: what a child runs (see ``children``).
        ready: children that wait for work.
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
    ) -> None:
        self._settings = settings
        self._database = database
        self._worker = worker
        self._draining = draining
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

    def work_on(self, experiment_id: str) -> None:
        """Do a job if it waits; a message about one that does not is a message too many, and changes nothing."""
        if self._draining():
            return
        with self._database.transaction() as session:
            claimed = claim(session, experiment_id, worker=self._worker)
        if claimed is None:
            return
        log.info("Attempt %d at %s begins", claimed.attempt, experiment_id)
        with LeaseKeeper(self._database, claimed) as keeper, self.children.working(assignment(claimed)) as child:
            reason = self._watch(child, keeper)
            if keeper.was_refused and self._ended_by(claimed):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(STOP_SECONDS)
            exit_code = child.end(patience=0.0 if reason == LeaseState.LOST else STOP_SECONDS)
        log.info("Attempt %d at %s ended: %s, exit code %s", claimed.attempt, experiment_id, reason, exit_code)
        self._settle(claimed, reason, exit_code)
        self.children.prepare()

    def _watch(self, child: Child, keeper: LeaseKeeper) -> LeaseState:
        """Wait until the child ends, or has to. Draining is told as ``HELD``: the work is still ours and wanted."""
        while child.process.poll() is None and not self._draining():
            if keeper.state != LeaseState.HELD:
                return keeper.state
            child.keep_alive()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(LOOK_SECONDS)
        return LeaseState.HELD

    def _ended_by(self, claimed: Claim) -> bool:
        """Whether this attempt ended the job: then its child has only its last event to write."""
        with self._database.reading() as session:
            row = find_job(session, claimed.kind, claimed.experiment_id)
        return row is not None and row.attempt == claimed.attempt and row.status in FINISHED

    def _settle(self, claimed: Claim, reason: LeaseState, exit_code: int) -> None:
        """Record how an attempt ended, unless its child did; without the database the reaper does, a lease later."""
        try:
            with self._database.transaction() as session:
                if reason == LeaseState.CANCELLED:
                    status = Status.REVOKED if revoke(session, claimed) else None
                elif self._draining():
                    status = Status.PENDING if give_back(session, claimed) else None
                else:
                    lost = WorkerLostError(f"The training process ended with exit code {exit_code}.")
                    status = fail_or_retry(session, claimed, lost)
        except SQLAlchemyError as error:
            log.warning("The end of %s was not recorded: %s", claimed.experiment_id, error)
            return
        if status is not None:
            self._tell(claimed, status)

    def _tell(self, claimed: Claim, status: Status) -> None:
        event = {"time": time.time(), "type": "status", "status": status, "attempt": claimed.attempt}
        try:
            results = self._settings.results_folder
            folder = ExperimentFolder.open(results_of(results, claimed.kind), claimed.experiment_id)
            folder.append_event(event)
        except LoramillError as error:
            log.warning("%s", error)


def assignment(claimed: Claim) -> dict[str, Any]:
    """What a child is told."""
    return {
        "kind": claimed.kind,
        "job": claimed.experiment_id,
        "attempt": claimed.attempt,
        "resume": claimed.resume,
    }
