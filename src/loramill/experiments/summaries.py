"""Experiments as lists show them: the row, its metrics and its tags, in two statements for a whole page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, CompoundSelect, any_, bindparam, null, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from loramill.experiments.models import Experiment, Metric, Tag


@dataclass(frozen=True)
class ExperimentSummary:
    """One experiment, without its config."""

    id: str
    name: str
    status: str
    owner: str | None
    model_name: str
    dataset_name: str
    task: str
    language: str | None
    source: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    train_runtime: float | None
    """Seconds."""
    eval_accuracy: float | None
    error_code: str | None
    error_message: str | None
    archived: bool
    notes: str
    sweep_id: str | None
    parent_id: str | None
    parent_relation: str | None
    stage: str | None
    progress: dict[str, Any] | None
    metrics: dict[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; times in ISO 8601."""
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(self).items()}


def one_of(session: Session, column: InstrumentedAttribute[int], numbers: Sequence[int]) -> ColumnElement[bool]:
    """``column IN (...)`` for many integers of our own, without a parameter each, which would cost more than the query.

    On PostgreSQL they are one array, so that the statement stays the same and is prepared once; elsewhere they stand in
    the text.
    """
    if session.get_bind().dialect.name == "postgresql":
        return column == any_(bindparam(None, list(numbers), type_=ARRAY(BigInteger)))
    return column.in_(bindparam(None, numbers, expanding=True, literal_execute=True))


ROW_FIELDS = [name for name in ExperimentSummary.__dataclass_fields__ if name not in ("metrics", "tags")]


def summarize(session: Session, numbers: Sequence[int]) -> list[ExperimentSummary]:
    """Summaries of these rows, in this order; rows that were deleted meanwhile are left out."""
    columns = [getattr(Experiment, name) for name in ROW_FIELDS]
    found = session.execute(select(Experiment.number, *columns).where(one_of(session, Experiment.number, numbers)))
    rows = {number: dict(zip(ROW_FIELDS, values, strict=True)) for number, *values in found}
    metrics: dict[int, dict[str, float]] = {number: {} for number in numbers}
    tags: dict[int, list[str]] = {number: [] for number in numbers}
    for number, name, value in sorted(
        session.execute(_metrics_and_tags(session, numbers)).all(), key=lambda row: row[:2]
    ):
        if value is None:
            tags[number].append(name)
        else:
            metrics[number][name] = value
    return [ExperimentSummary(**rows[n], metrics=metrics[n], tags=tuple(tags[n])) for n in numbers if n in rows]


def _metrics_and_tags(session: Session, numbers: Sequence[int]) -> CompoundSelect[Any]:
    """Both in one statement, a tag without a value: a page costs a round trip less."""
    metrics = select(Metric.experiment_number, Metric.name, Metric.value)
    tags = select(Tag.experiment_number, Tag.name, null())
    return union_all(
        metrics.where(one_of(session, Metric.experiment_number, numbers)),
        tags.where(one_of(session, Tag.experiment_number, numbers)),
    )
