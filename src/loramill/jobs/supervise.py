"""The worker's side of a job: claim it, let a child process train, and see to it that the row tells the truth.

The worker holds the lease and never imports torch. Whatever happens to one of the two, the work ends with it: the
worker kills the child when the job was cancelled or its lease is lost, and the child dies when the worker is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
from sqlalchemy.exc import SQLAlchemyError

from loramill.database import Database
from loramill.errors import ConflictError, LoramillError, WorkerLostError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import FINISHED, Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.lease import Claim, LeaseKeeper, LeaseState, claim, give_back
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
        command: what the child runs, before its three arguments.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        worker: str,
        draining: Callable[[], bool],
        command: tuple[str, ...] = (sys.executable, "-m", "loramill.jobs.child"),
    ) -> None:
        self._settings = settings
        self._database = database
        self._worker = worker
        self._draining = draining
        self._command = command

    def work_on(self, experiment_id: str) -> None:
        """Do a job if it waits; a message about one that does not is a message too many, and changes nothing."""
        if self._draining():
            return
        with self._database.transaction() as session:
            claimed = claim(session, experiment_id, worker=self._worker)
        if claimed is None:
            return
        log.info("Attempt %d at %s begins", claimed.attempt, experiment_id)
        with LeaseKeeper(self._database, claimed) as keeper, self._child(claimed) as (child, lifeline):
            reason = self._watch(child, lifeline, keeper)
            if keeper.was_refused and self._ended_by(claimed):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(STOP_SECONDS)
            exit_code = end_tree(child, patience=0.0 if reason == LeaseState.LOST else STOP_SECONDS)
        log.info("Attempt %d at %s ended: %s, exit code %s", claimed.attempt, experiment_id, reason, exit_code)
        self._settle(claimed, reason, exit_code)

    @contextlib.contextmanager
    def _child(self, claimed: Claim) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """A process in a group of its own and its lifeline; nothing of it is left when the block ends."""
        arguments = (claimed.experiment_id, str(claimed.attempt), "resume" if claimed.resume else "start")
        inherited = {name: value for name, value in os.environ.items() if name not in WORKERS_SECRETS}
        ours = {"LORAMILL_HOME": str(self._settings.home.absolute()), "DATABASE_URL": self._database.url}
        end, lifeline = os.pipe()
        try:
            child = subprocess.Popen(  # noqa: S603
                [*self._command, *arguments],
                stdin=end,
                stdout=subprocess.DEVNULL,
                env={**inherited, **ours},
                start_new_session=True,
            )
            try:
                yield child, lifeline
            finally:
                end_tree(child, patience=0.0)
        finally:
            os.close(end)
            os.close(lifeline)

    def _watch(self, child: subprocess.Popen[bytes], lifeline: int, keeper: LeaseKeeper) -> LeaseState:
        """Wait until the child ends, or has to. Draining is told as ``HELD``: the work is still ours and wanted."""
        while child.poll() is None and not self._draining():
            if keeper.state != LeaseState.HELD:
                return keeper.state
            with contextlib.suppress(OSError):  # it has just ended
                os.write(lifeline, b".")
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(LOOK_SECONDS)
        return LeaseState.HELD

    def _ended_by(self, claimed: Claim) -> bool:
        """Whether this attempt ended the job: then its child has only its last event to write."""
        with self._database.reading() as session:
            row = ExperimentStore(session).find(claimed.experiment_id)
        return row is not None and row.attempt == claimed.attempt and row.status in FINISHED

    def _settle(self, claimed: Claim, reason: LeaseState, exit_code: int) -> None:
        """Record how an attempt ended, unless its child did; without the database the reaper does, a lease later."""
        try:
            with self._database.transaction() as session:
                if reason == LeaseState.CANCELLED:
                    status = self._revoke(ExperimentStore(session), claimed)
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

    def _revoke(self, store: ExperimentStore, claimed: Claim) -> Status | None:
        try:
            store.mark_revoked(claimed.experiment_id, attempt=claimed.attempt)
        except ConflictError:  # it ended by itself at the same moment
            return None
        return Status.REVOKED

    def _tell(self, claimed: Claim, status: Status) -> None:
        event = {"time": time.time(), "type": "status", "status": status, "attempt": claimed.attempt}
        try:
            folder = ExperimentFolder.open(self._settings.results_folder, claimed.experiment_id)
            folder.append_event(event)
        except LoramillError as error:
            log.warning("%s", error)


def end_tree(child: subprocess.Popen[bytes], *, patience: float) -> int:
    """Ask a process to end, wait ``patience`` seconds, then kill it and all that it started. Returns its exit code."""
    started = _descendants(child)
    if patience and child.poll() is None:
        child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    for process in started:  # those that left the group
        with contextlib.suppress(psutil.Error):
            process.kill()
    return child.wait()


def _descendants(child: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(child.pid).children(recursive=True)
    except psutil.Error:
        return []
