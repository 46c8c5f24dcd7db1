"""Totals over many experiments: one pass in the database, however many rows there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, select
from sqlalchemy.orm import Session

from loramill.errors import ConfigError, Problem
from loramill.experiments.filters import ExperimentFilter, conditions_of
from loramill.experiments.metrics import has_a_best, lower_is_better
from loramill.experiments.models import Experiment, Metric, Status

GROUPS = {
    "model_name": Experiment.model_name,
    "dataset_name": Experiment.dataset_name,
    "owner": Experiment.owner,
    "status": Experiment.status,
    "task": Experiment.task,
    "language": Experiment.language,
    "sweep_id": Experiment.sweep_id,
}


@dataclass(frozen=True)
class ExperimentStatistics:
    """Totals; accuracy and runtime (seconds) over the runs that have them."""

    total: int
    by_status: dict[str, int]
    best_accuracy: float | None
    mean_accuracy: float | None
    mean_runtime: float | None
    total_runtime: float | None


@dataclass(frozen=True)
class GroupStatistics:
    """How the runs of one group did by a metric; ``count`` of its ``runs`` have it."""

    group: str | None
    runs: int
    finished: int
    count: int
    mean: float | None
    deviation: float | None
    smallest: float | None
    largest: float | None
    mean_runtime: float | None
    best_id: str | None


@dataclass(frozen=True)
class MetricStatistics:
    """How one metric is spread over ``count`` runs; ``best_id`` where a run can be better than another by it."""

    metric: str
    count: int
    mean: float
    deviation: float
    smallest: float
    largest: float
    best_id: str | None


def overall_statistics(session: Session, wanted: ExperimentFilter) -> ExperimentStatistics:
    conditions = conditions_of(wanted)
    statuses = select(Experiment.status, func.count()).where(*conditions).group_by(Experiment.status)
    by_status = dict(session.execute(statuses).all())
    accuracy, runtime = Experiment.eval_accuracy, Experiment.train_runtime
    values = select(func.max(accuracy), func.avg(accuracy), func.avg(runtime), func.sum(runtime)).where(*conditions)
    return ExperimentStatistics(sum(by_status.values()), by_status, *session.execute(values).one())


def group_statistics(session: Session, column: str, metric: str, wanted: ExperimentFilter) -> list[GroupStatistics]:
    """
    Raises:
        ConfigError: nothing can be grouped by ``column``.
    """
    if column not in GROUPS:
        raise ConfigError([Problem("by", column, f"must be one of {', '.join(GROUPS)}")], source="query")
    group = GROUPS[column]
    value, statement = _with_metric(metric, select(group), wanted)
    finished = func.sum(case((Experiment.status == Status.SUCCESS, 1), else_=0))
    counts = func.count(), finished, func.count(value)
    spread = func.avg(value), func.avg(value * value), func.min(value), func.max(value)
    rows = session.execute(
        statement.add_columns(*counts, *spread, func.avg(Experiment.train_runtime)).group_by(group).order_by(group)
    ).all()
    best = _best_ids(session, group, metric, wanted)
    return [
        GroupStatistics(name, runs, done, count, mean, _deviation(mean, square), low, high, runtime, best.get(name))
        for name, runs, done, count, mean, square, low, high, runtime in rows
    ]


def metric_statistics(session: Session, wanted: ExperimentFilter) -> list[MetricStatistics]:
    value = Metric.value
    spread = func.count(), func.avg(value), func.avg(value * value), func.min(value), func.max(value)
    statement = select(Metric.name, *spread).join(Experiment, Experiment.number == Metric.experiment_number)
    rows = session.execute(statement.where(*conditions_of(wanted)).group_by(Metric.name).order_by(Metric.name)).all()
    return [
        MetricStatistics(
            metric=name,
            count=count,
            mean=mean,
            deviation=_deviation(mean, square) or 0.0,
            smallest=low,
            largest=high,
            best_id=_best_id(session, name, low, high, wanted) if has_a_best(name) else None,
        )
        for name, count, mean, square, low, high in rows
    ]


def _with_metric(
    metric: str, statement: Select[Any], wanted: ExperimentFilter
) -> tuple[ColumnElement[Any], Select[Any]]:
    """A metric beside each row that passes, ``NULL`` where a row lacks it."""
    has_metric = and_(Metric.experiment_number == Experiment.number, Metric.name == metric)
    joined = statement.select_from(Experiment).outerjoin(Metric, has_metric).where(*conditions_of(wanted))
    return Metric.value.expression, joined


def _best_ids(session: Session, group: Any, metric: str, wanted: ExperimentFilter) -> dict[str | None, str]:
    """Group -> id of its best run by the metric; of equals the oldest."""
    value, statement = _with_metric(metric, select(group.label("name"), Experiment.id), wanted)
    best_first = value if lower_is_better(metric) else value.desc()
    place = func.row_number().over(partition_by=group, order_by=(best_first, Experiment.number)).label("place")
    ranked = statement.add_columns(place).where(value.is_not(None)).subquery()
    rows = session.execute(select(ranked.c.name, ranked.c.id).where(ranked.c.place == 1))
    return dict(rows.all())


def _best_id(session: Session, metric: str, low: float, high: float, wanted: ExperimentFilter) -> str:
    best = low if lower_is_better(metric) else high
    statement = select(Experiment.id).join(Metric, Metric.experiment_number == Experiment.number)
    found = statement.where(Metric.name == metric, Metric.value == best, *conditions_of(wanted))
    return session.scalars(found.order_by(Experiment.number).limit(1)).one()


def _deviation(mean: float | None, mean_square: float | None) -> float | None:
    """Population standard deviation from the two moments."""
    if mean is None or mean_square is None:
        return None
    return math.sqrt(max(mean_square - mean * mean, 0.0))
