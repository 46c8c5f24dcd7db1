"""Accepting work: a folder and a row first, the message to the queue last."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from loramill.auth.audit_log import Actor, AuditLog
from loramill.auth.quotas import check_quota
from loramill.auth.users import UserStore
from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import ConflictError, LoramillError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Experiment, Status
from loramill.experiments.record_file import save_record
from loramill.experiments.store import ExperimentStore, NewExperiment
from loramill.jobs.folders import new_folders, reserve_folder, write_down
from loramill.jobs.usage import count_usage
from loramill.settings import Settings

SUBMIT_ACTION = "task.submit"

log = logging.getLogger(__name__)


def submit_training(
    config: ExperimentConfig,
    *,
    settings: Settings,
    database: Database,
    enqueue: Callable[[str], None],
    owner: str | None = None,
) -> ExperimentFolder:
    """Record an experiment as PENDING and hand its id to ``enqueue``.

    The row is the truth and the message only a hint, so the message leaves after the commit: a worker never hears of
    an experiment that is not there.

    Raises:
        DiskFullError, UnwritableError, StorageError, DatabaseUnavailableError: nothing was recorded.
    """
    with new_folders() as made:
        folder = reserve_folder(config, settings)
        made.append(folder)
        write_down(folder, config)
        with database.transaction() as session:
            ExperimentStore(session).create(NewExperiment.from_config(folder.id, config, owner=owner))
    enqueue(folder.id)
    return folder


@dataclass(frozen=True)
class Submission:
    """What a signed-in user asks for.

    Args:
        idempotency_key: names the request; the same user's same key is the same request.
    """

    config: ExperimentConfig
    actor: Actor
    priority: int = 0
    idempotency_key: str | None = None

    @property
    def owner(self) -> str:
        return str(self.actor.user_id)


@dataclass(frozen=True)
class Accepted:
    """A job that was recorded; its task is what the user asks about from now on."""

    task_id: str
    experiment_id: str


def submit_for_user(
    submission: Submission,
    *,
    settings: Settings,
    database: Database,
    audit: AuditLog,
    enqueue: Callable[[str], None],
) -> Accepted:
    """``submit_training`` within the user's quota, once for each idempotency key, and in the audit log.

    Raises:
        QuotaExceededError: the user has used up what one user may use.
        ConflictError: the key was used for another config.
    """
    with new_folders() as made, database.transaction() as session:
        quota = UserStore(session).lock_quota(submission.owner)  # a user's submits come one after the other
        known = _find_same(session, submission)
        if known is not None:
            return Accepted(known.task_id or known.id, known.id)
        check_quota(quota, count_usage(session, submission.owner))
        folder = reserve_folder(submission.config, settings)
        made.append(folder)
        accepted = Accepted(f"{submission.owner}_{secrets.token_hex(8)}", folder.id)
        ExperimentStore(session).create(_new_experiment(submission, accepted))
        audit.record(session, submission.actor, SUBMIT_ACTION, folder.id)
    enqueue(folder.id)
    try:
        write_down(folder, submission.config)
        save_record(database, folder.path.parent, folder.id)
    except LoramillError as error:  # the job is accepted, and its worker will try again
        log.warning("%s: %s", folder.id, error)
    return accepted


def _new_experiment(submission: Submission, accepted: Accepted) -> NewExperiment:
    return NewExperiment.from_config(
        accepted.experiment_id,
        submission.config,
        owner=submission.owner,
        task_id=accepted.task_id,
        idempotency_key=submission.idempotency_key,
        priority=submission.priority,
    )


def _find_same(session: Session, submission: Submission) -> Experiment | None:
    if submission.idempotency_key is None:
        return None
    same = Experiment.owner == submission.owner, Experiment.idempotency_key == submission.idempotency_key
    known = session.scalar(select(Experiment).where(*same))
    if known is not None and known.config != submission.config.model_dump(mode="json"):
        raise ConflictError("This Idempotency-Key was used for another config.", fix="Use a new key for a new run.")
    return known


def find_task(session: Session, task_id: str) -> Experiment | None:
    """The row of a task; runs that were started at the shell go by the id of their experiment."""
    by_task = session.scalar(select(Experiment).where(Experiment.task_id == task_id))
    return by_task or session.scalar(select(Experiment).where(Experiment.id == task_id, Experiment.task_id.is_(None)))


def list_tasks(
    session: Session, *, owner: str | None, status: Status | None, before: int | None, limit: int
) -> Sequence[Experiment]:
    """Rows of one owner, or of everybody, newest first, with numbers below ``before``."""
    wanted = select(Experiment).order_by(Experiment.number.desc()).limit(limit)
    if owner is not None:
        wanted = wanted.where(Experiment.owner == owner)
    if status is not None:
        wanted = wanted.where(Experiment.status == status)
    if before is not None:
        wanted = wanted.where(Experiment.number < before)
    return session.scalars(wanted).all()
