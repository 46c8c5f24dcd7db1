"""Accepting a sweep: its file and its row first, the message to the queue last. Its worker records the trials."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from loramill.auth.audit_log import Actor, AuditLog
from loramill.auth.quotas import check_quota
from loramill.auth.users import UserStore
from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import ConflictError
from loramill.experiments.models import Experiment, Status
from loramill.jobs.job_tables import SweepJob
from loramill.jobs.sweep import DELETED, Sweep, TrialEntry, new_sweep
from loramill.jobs.usage import count_usage
from loramill.settings import Settings
from loramill.sweeps.halving import Halving
from loramill.sweeps.search import Search

SUBMIT_ACTION = "sweep.submit"


@dataclass(frozen=True)
class SweepSubmission:
    """What a signed-in user asks for; the same user's same ``idempotency_key`` is the same request."""

    config: ExperimentConfig
    search: Search
    halving: Halving | None
    actor: Actor
    priority: int = 0
    idempotency_key: str | None = None

    @property
    def owner(self) -> str:
        return str(self.actor.user_id)

    @property
    def request(self) -> dict[str, Any]:
        search = {**asdict(self.search), "space": list(self.search.space)}
        halving = asdict(self.halving) if self.halving else None
        return {"config": self.config.model_dump(mode="json"), "search": search, "halving": halving}


def submit_sweep_for_user(
    submission: SweepSubmission,
    *,
    settings: Settings,
    database: Database,
    audit: AuditLog,
    enqueue: Callable[[str], None],
) -> SweepJob:
    """Record a sweep as PENDING within the user's quota, once for each idempotency key, and in the audit log.

    Raises:
        QuotaExceededError: the user has used up what one user may use.
        ConflictError: the key was used for another sweep.
    """
    sweep = new_sweep(submission.config, halving=submission.halving, search=submission.search)
    sweep.sweep_id = f"{sweep.sweep_id}_{secrets.token_hex(4)}"  # two processes may submit in one microsecond
    try:
        with database.transaction() as session:
            quota = UserStore(session).lock_quota(submission.owner)
            known = _find_same(session, submission)
            if known is not None:
                return known
            check_quota(quota, count_usage(session, submission.owner))
            sweep.save(settings)
            row = _add_row(session, submission, sweep)
            audit.record(session, submission.actor, SUBMIT_ACTION, row.id)
    except BaseException:
        shutil.rmtree(sweep.folder(settings), ignore_errors=True)
        raise
    enqueue(row.id)
    return row


def list_sweeps(session: Session, *, owner: str | None, before: int | None, limit: int) -> Sequence[SweepJob]:
    """Sweeps of one owner, or of everybody, newest first, with numbers below ``before``."""
    wanted = select(SweepJob).order_by(SweepJob.number.desc()).limit(limit)
    if owner is not None:
        wanted = wanted.where(SweepJob.owner == owner)
    if before is not None:
        wanted = wanted.where(SweepJob.number < before)
    return session.scalars(wanted).all()


def count_trials(session: Session, sweep_ids: Sequence[str]) -> Mapping[str, dict[str, int]]:
    """Sweep -> status -> trials."""
    counted = (
        select(Experiment.sweep_id, Experiment.status, func.count())
        .where(Experiment.sweep_id.in_(sweep_ids))
        .group_by(Experiment.sweep_id, Experiment.status)
    )
    counts: dict[str, dict[str, int]] = {sweep_id: {} for sweep_id in sweep_ids}
    for sweep_id, status, number in session.execute(counted):
        counts[str(sweep_id)][status] = number
    return counts


@dataclass(frozen=True)
class TrialRow:
    """One trial: what its sweep keeps of it, and its own row, unless that was deleted."""

    entry: TrialEntry
    row: Experiment | None

    @property
    def status(self) -> str:
        """The row's, which is written first; only the sweep knows that a trial was stopped early as a worse one."""
        if self.row is None:
            return DELETED
        return self.entry.status if self.entry.status == "PRUNED" else self.row.status


def trials_of(session: Session, sweep: Sweep) -> list[TrialRow]:
    """All trials, in their order."""
    rows = {row.id: row for row in session.scalars(select(Experiment).where(Experiment.sweep_id == sweep.sweep_id))}
    return [TrialRow(entry, rows.get(entry.experiment_id)) for entry in sweep.trials]


def _add_row(session: Session, submission: SweepSubmission, sweep: Sweep) -> SweepJob:
    row = SweepJob(
        id=sweep.sweep_id,
        name=submission.config.experiment_name,
        request=submission.request,
        status=Status.PENDING,
        owner=submission.owner,
        created_at=datetime.now(UTC),
        idempotency_key=submission.idempotency_key,
        priority=submission.priority,
    )
    session.add(row)
    session.flush()
    return row


def _find_same(session: Session, submission: SweepSubmission) -> SweepJob | None:
    if submission.idempotency_key is None:
        return None
    same = SweepJob.owner == submission.owner, SweepJob.idempotency_key == submission.idempotency_key
    known = session.scalar(select(SweepJob).where(*same))
    if known is not None and known.request != submission.request:
        raise ConflictError("This Idempotency-Key was used for another sweep.", fix="Use a new key for a new sweep.")
    return known
