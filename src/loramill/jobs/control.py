"""What the owner of a job may ask for while others work on it: to end it, and to go on with it."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import case, update
from sqlalchemy.orm import Session

from loramill.auth.quotas import Usage, check_quota
from loramill.auth.users import UserStore
from loramill.errors import ConflictError, NotFoundError
from loramill.experiments.models import FINISHED, Experiment, Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.job_tables import TABLES, JobKind, JobRow, end_row, end_trials, find_job, may_be_taken
from loramill.jobs.usage import count_usage

RESUMABLE = (Status.FAILURE, Status.REVOKED)


def request_cancel(session: Session, experiment_id: str, kind: JobKind = JobKind.RUN) -> bool:
    """End a job: at once while it waits, otherwise as soon as its worker renews its lease.

    One UPDATE, so that a worker that claims it at the same moment either comes too late or hears of it.

    Returns:
        Whether there was anything to end; a job that has ended already stays as it is.

    Raises:
        NotFoundError: no job has this id.
        ConflictError: it is a trial, which ends with its sweep.
    """
    if kind == JobKind.RUN and _end_abandoned(session, experiment_id):
        return True
    table, now = TABLES[kind], datetime.now(UTC)
    waiting = table.status == Status.PENDING
    ended = session.execute(
        update(table)
        .where(table.id == experiment_id, table.status.not_in(FINISHED), may_be_taken(kind))
        .values(
            cancel_requested=True,
            status=case((waiting, Status.REVOKED), else_=table.status),
            finished_at=case((waiting, now), else_=table.finished_at),
        )
        .returning(table.status)
        .execution_options(synchronize_session=False)
    ).first()
    if ended is None:
        _check_no_trial(get_job(session, experiment_id, kind))
    elif kind == JobKind.SWEEP and ended.status == Status.REVOKED:
        end_trials(session, experiment_id, status=Status.REVOKED, finished_at=now)
    return ended is not None


def request_resume(session: Session, experiment_id: str, kind: JobKind = JobKind.RUN) -> None:
    """Let a job that failed or was cancelled wait again, to go on from its last checkpoint.

    Publish its id after the commit.

    Raises:
        NotFoundError: no job has this id.
        ConflictError: it has not ended, or it succeeded, or it is a trial, which goes on with its sweep.
        QuotaExceededError: its owner has no room for one more job.
    """
    if kind == JobKind.RUN:
        _end_abandoned(session, experiment_id)
    table = TABLES[kind]
    waiting = session.execute(
        update(table)
        .where(table.id == experiment_id, table.status.in_(RESUMABLE), may_be_taken(kind))
        .values(
            status=Status.PENDING,
            resume=True,
            cancel_requested=False,
            setbacks=0,
            worker=None,
            lease_until=None,
            not_before=None,
            finished_at=None,
            error_code=None,
            error_message=None,
        )
        .returning(table.owner)
        .execution_options(synchronize_session=False)
    ).first()
    if waiting is None:
        job = get_job(session, experiment_id, kind)
        _check_no_trial(job)
        raise ConflictError(f"{experiment_id!r} is {job.status}.", fix="Only failed or cancelled ones go on.")
    if waiting.owner is not None:
        _check_room(session, waiting.owner)


def _end_abandoned(session: Session, experiment_id: str) -> bool:
    """Record that a run of the shell ended, if its process was killed before it could; a trial ends with its sweep."""
    run = ExperimentStore(session).find(experiment_id)
    if run is None or run.sweep_id is not None or not run.is_abandoned:
        return False
    end_row(session, run, Status.REVOKED, finished_at=datetime.now(UTC))
    session.flush()
    return True


def get_job(session: Session, job_id: str, kind: JobKind) -> JobRow:
    """Raises ``NotFoundError``."""
    job = find_job(session, kind, job_id)
    if job is None:
        raise NotFoundError(f"There is no such {kind}.", fix="See `loramill experiments list`.")
    return job


def _check_room(session: Session, owner: str) -> None:
    """Refuse the job that just began to wait again when it is one too many; it was counted as a submit when it was one.

    Raises:
        QuotaExceededError: so many jobs wait and run already, or the files are too large.
    """
    quota = UserStore(session).lock_quota(owner)
    used = count_usage(session, owner)
    check_quota(quota, Usage(concurrent_jobs=used.concurrent_jobs - 1, stored_bytes=used.stored_bytes))


def _check_no_trial(job: JobRow) -> None:
    if isinstance(job, Experiment) and job.sweep_id is not None and job.status not in FINISHED - set(RESUMABLE):
        raise ConflictError(f"{job.id!r} is a trial.", fix=f"Ask for its whole sweep: {job.sweep_id}")
