"""What users hold on disk, and their quotas count: the files of data sets, and the folders of experiments."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from loramill.data.datasets import DatasetStore
from loramill.database import Database
from loramill.experiments.models import Experiment
from loramill.files import folder_bytes
from loramill.jobs.job_tables import JobKind
from loramill.jobs.lease import Claim


def stored_bytes_of(session: Session, owner: str) -> int:
    """Of all that a user uploaded, cleaned and trained. A run is counted once an attempt at it has ended."""
    experiments = select(func.sum(Experiment.stored_bytes)).where(Experiment.owner == owner)
    return DatasetStore(session).stored_bytes(owner) + int(session.scalar(experiments) or 0)


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
