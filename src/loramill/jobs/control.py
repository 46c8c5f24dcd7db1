"""What the owner of a job may ask for while others work on it: to end it, and to go on with it."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import case, update
from sqlalchemy.orm import Session

from loramill.errors import ConflictError
from loramill.experiments.models import FINISHED, Experiment, Status
from loramill.experiments.store import ExperimentStore

RESUMABLE = (Status.FAILURE, Status.REVOKED)


def request_cancel(session: Session, experiment_id: str) -> bool:
    """End a job: at once while it waits, otherwise as soon as its worker renews its lease.

    One UPDATE, so that a worker that claims it at the same moment either comes too late or hears of it.

    Returns:
        Whether there was anything to end; a job that has ended already stays as it is.

    Raises:
        NotFoundError: no experiment has this id.
    """
    waiting = Experiment.status == Status.PENDING
    ended = session.execute(
        update(Experiment)
        .where(Experiment.id == experiment_id, Experiment.status.not_in(FINISHED))
        .values(
            cancel_requested=True,
            status=case((waiting, Status.REVOKED), else_=Experiment.status),
            finished_at=case((waiting, datetime.now(UTC)), else_=Experiment.finished_at),
        )
        .returning(Experiment.number)
        .execution_options(synchronize_session=False)
    ).first()
    if ended is None:
        ExperimentStore(session).get(experiment_id)
    return ended is not None


def request_resume(session: Session, experiment_id: str) -> None:
    """Let a job that failed or was cancelled wait again, to go on from its last checkpoint.

    Publish its id after the commit.

    Raises:
        NotFoundError: no experiment has this id.
        ConflictError: it has not ended, or it succeeded.
    """
    waiting = session.execute(
        update(Experiment)
        .where(Experiment.id == experiment_id, Experiment.status.in_(RESUMABLE))
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
        .returning(Experiment.number)
        .execution_options(synchronize_session=False)
    ).first()
    if waiting is None:
        status = ExperimentStore(session).get(experiment_id).status
        raise ConflictError(f"Experiment {experiment_id!r} is {status}.", fix="Only failed or cancelled ones go on.")
