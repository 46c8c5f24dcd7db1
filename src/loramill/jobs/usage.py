"""What one user has now, as their quota counts it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Select, String, bindparam, func, select, update
from sqlalchemy.orm import Session

from loramill.auth.quotas import Usage
from loramill.data.datasets import Dataset, DatasetVersion
from loramill.database import Database, UtcDateTime
from loramill.experiments.models import FINISHED, Experiment
from loramill.files import folder_bytes
from loramill.jobs.job_tables import JobKind, SweepJob, may_be_taken
from loramill.jobs.lease import Claim


def _usage() -> Select[Any]:
    owner = bindparam("owner", type_=String())
    yesterday = bindparam("yesterday", type_=UtcDateTime())
    unfinished = Experiment.status.not_in(FINISHED), may_be_taken(JobKind.RUN)  # a sweep is one, not each of its trials
    sweeps = select(func.count()).where(SweepJob.owner == owner, SweepJob.status.not_in(FINISHED))
    uploads = (
        select(func.coalesce(func.sum(DatasetVersion.bytes), 0))
        .join(Dataset, Dataset.number == DatasetVersion.dataset_number)
        .where(Dataset.owner == owner)
    )
    return select(
        func.count().filter(*unfinished).label("runs"),
        sweeps.scalar_subquery().label("sweeps"),
        func.count().filter(Experiment.created_at > yesterday).label("daily"),
        func.count().label("stored"),
        func.coalesce(func.sum(Experiment.stored_bytes), 0).label("experiment_bytes"),
        uploads.scalar_subquery().label("upload_bytes"),
    ).where(Experiment.owner == owner)


USAGE = _usage()
"""Made once: making it takes longer than its answer, and every submit waits for both."""


def count_usage(session: Session, owner: str) -> Usage:
    """Jobs, submits, experiments and bytes of a user; a run's bytes count once an attempt at it has ended."""
    asked = {"owner": owner, "yesterday": datetime.now(UTC) - timedelta(days=1)}
    counted = session.connection().execute(USAGE, asked).one()
    return Usage(
        concurrent_jobs=counted.runs + counted.sweeps,
        daily_submits=counted.daily,
        stored_experiments=counted.stored,
        stored_bytes=int(counted.experiment_bytes) + int(counted.upload_bytes),
    )


def record_stored_bytes(database: Database, results_folder: Path, claim: Claim) -> None:
    """Note how much the run of a claim, or each trial of its sweep, holds on disk by now."""
    is_run = claim.kind == JobKind.RUN
    ours = Experiment.id == claim.experiment_id if is_run else Experiment.sweep_id == claim.experiment_id
    with database.reading() as session:
        names = session.scalars(select(Experiment.id).where(ours)).all()
    sizes = {name: folder_bytes(results_folder / name) for name in names}
    with database.transaction() as session:
        for name, size in sizes.items():
            session.execute(update(Experiment).where(Experiment.id == name).values(stored_bytes=size))
