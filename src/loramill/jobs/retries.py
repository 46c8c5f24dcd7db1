"""What becomes of a job whose attempt ended early: wait and go on from the last checkpoint, or fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from loramill.errors import InternalError, LoramillError, OutOfMemoryError, WorkerLostError
from loramill.experiments.models import Status
from loramill.jobs.job_tables import JobRow, end_row, lock_job
from loramill.jobs.lease import AT_WORK, Claim

MAX_SETBACKS = {OutOfMemoryError.code: 3, WorkerLostError.code: 20}
"""Attempts in a row, without a new checkpoint, that may end in an error that can pass. All other errors are final:
a wrong config or a data set without rows is as wrong the next time."""

MAX_DELAY_SECONDS = 60.0


def with_code(error: Exception) -> LoramillError:
    """The error as a row keeps it: one that nobody foresaw is a defect, and its name goes into the message."""
    return error if isinstance(error, LoramillError) else InternalError(f"{type(error).__name__}: {error}")


def fail_or_retry(session: Session, claim: Claim, error: LoramillError) -> Status | None:
    """Record the error that ended an attempt. Returns the job's new status; ``None`` when the claim was lost before."""
    table = claim.table
    row = lock_job(
        session, claim.kind, table.id == claim.experiment_id, table.attempt == claim.attempt, table.status.in_(AT_WORK)
    )
    return None if row is None else set_back(session, row, error)


def set_back(session: Session, experiment: JobRow, error: LoramillError) -> Status:
    """Take a locked row from its worker: waiting again, or ended by its owner's wish, or failed."""
    now = datetime.now(UTC)
    experiment.setbacks += 1
    experiment.worker = experiment.lease_until = None
    if experiment.cancel_requested:
        end_row(session, experiment, Status.REVOKED, finished_at=now)
    elif experiment.setbacks < MAX_SETBACKS.get(error.code, 0):
        experiment.status, experiment.resume = Status.PENDING, True
        experiment.not_before = now + retry_delay(experiment.setbacks)
    else:
        told = {"error_code": error.code, "error_message": str(error).replace("\0", "")}
        end_row(session, experiment, Status.FAILURE, finished_at=now, **told)
    return Status(experiment.status)


def retry_delay(setbacks: int) -> timedelta:
    """None after the first setback, then longer and longer: 1, 3, 7, 15 ... 60 seconds."""
    return timedelta(seconds=min(MAX_DELAY_SECONDS, 2.0 ** min(setbacks - 1, 10) - 1))
