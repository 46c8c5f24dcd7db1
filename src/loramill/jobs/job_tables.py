"""What waits in the queue: single runs, and sweeps, whose trials are runs that no worker takes by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, ColumnElement, Index, String, select, true, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from loramill.config.schema import is_storable
from loramill.database import Base
from loramill.experiments.models import FINISHED, Experiment, QueueColumns, Status
from loramill.experiments.store import ExperimentStore


class SweepJob(QueueColumns, Base):
    """A sweep as a job; ``results/sweeps/<id>/sweep.json`` says which trials it has."""

    __tablename__ = "sweep"
    __table_args__ = (
        Index("sweep_owner", "owner", "number"),
        Index("sweep_status", "status", "number"),
        Index("sweep_idempotency", "owner", "idempotency_key", unique=True),
    )

    name: Mapped[str] = mapped_column(String(255))
    request: Mapped[dict[str, Any]] = mapped_column(JSON, doc="What was asked for: config, space, sampler, trials ...")


class JobKind(StrEnum):
    """The table that a job's row is in."""

    RUN = "run"
    SWEEP = "sweep"


TABLES: Mapping[JobKind, type[Experiment] | type[SweepJob]] = {JobKind.RUN: Experiment, JobKind.SWEEP: SweepJob}


JobRow = Experiment | SweepJob


def lock_job(session: Session, kind: JobKind, *conditions: ColumnElement[bool]) -> JobRow | None:
    """The row that fits, which nobody else changes until the transaction ends."""
    if kind == JobKind.RUN:
        return session.scalar(select(Experiment).where(*conditions).with_for_update())
    return session.scalar(select(SweepJob).where(*conditions).with_for_update())


def kind_of(row: JobRow) -> JobKind:
    return JobKind.SWEEP if isinstance(row, SweepJob) else JobKind.RUN


def find_job(session: Session, kind: JobKind, job_id: str) -> JobRow | None:
    if kind == JobKind.RUN:
        return ExperimentStore(session).find(job_id)
    return session.scalar(select(SweepJob).where(SweepJob.id == job_id)) if is_storable(job_id) else None


def results_of(results_folder: Path, kind: JobKind) -> Path:
    """Where the folders of jobs of a kind are."""
    return results_folder if kind == JobKind.RUN else results_folder / "sweeps"


def may_be_taken(kind: JobKind) -> ColumnElement[bool]:
    """Rows that a worker takes by themselves: a trial is done with its sweep."""
    return Experiment.sweep_id.is_(None) if kind == JobKind.RUN else true()


def end_trials(session: Session, sweep_id: str, **ended: Any) -> None:
    """Let every trial of a sweep that has not finished end as the sweep did."""
    session.execute(
        update(Experiment)
        .where(Experiment.sweep_id == sweep_id, Experiment.status.not_in(FINISHED))
        .values(**ended)
        .execution_options(synchronize_session=False)
    )


def end_row(session: Session, row: JobRow, status: Status, **ended: Any) -> None:
    """Set how a locked row ended, and with a sweep its trials."""
    for name, value in {"status": status, **ended}.items():
        setattr(row, name, value)
    if isinstance(row, SweepJob):
        end_trials(session, row.id, status=status, **ended)
