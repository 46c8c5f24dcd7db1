"""Finding experiments among very many: filters, sorting by any metric, pages by cursor.

A page is found by keyset: the cursor holds the sort value and number of the last row, and the next page is the
rows beyond it. The thousandth page costs what the first one does, and rows that arrive meanwhile shift nothing.
Rows without the sort value come last, newest first or oldest first as the direction says.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from loramill.errors import ConfigError, Problem
from loramill.experiments.models import Experiment, Metric, Tag

SORT_COLUMNS: dict[str, InstrumentedAttribute[Any]] = {
    "created_at": Experiment.created_at,
    "name": Experiment.name,
    "train_runtime": Experiment.train_runtime,
    "eval_accuracy": Experiment.eval_accuracy,
}
"""Sort keys that are columns; every other key is the name of a metric."""

MAX_LIMIT = 1000


@dataclass(frozen=True)
class ExperimentFilter:
    """What a reader looks for; every field that is given must hold."""

    name: str | None = None
    """Part of the name, in any case; words in any order."""
    min_accuracy: float | None = None
    max_runtime: float | None = None
    """Seconds of training."""
    start_date: datetime | None = None
    end_date: datetime | None = None
    """Creation, both ends included."""
    model_name: str | None = None
    dataset_name: str | None = None
    status: str | None = None
    owner: str | None = None
    tag: str | None = None
    sweep_id: str | None = None
    archived: bool | None = False
    """Archived ones are hidden unless asked for: True shows only them, None shows all."""


@dataclass(frozen=True)
class ExperimentSummary:
    """An experiment as lists show it."""

    id: str
    name: str
    status: str
    owner: str | None
    model_name: str
    dataset_name: str
    task: str
    source: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    train_runtime: float | None
    eval_accuracy: float | None
    error_code: str | None
    error_message: str | None
    archived: bool
    notes: str
    sweep_id: str | None
    parent_id: str | None
    stage: str | None
    metrics: dict[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; times in ISO 8601."""
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class ExperimentPage:
    """Experiments in order, and where the next page begins (``None`` on the last one)."""

    items: tuple[ExperimentSummary, ...]
    next_cursor: str | None


SUMMARY_COLUMNS = [
    getattr(Experiment, name) for name in ExperimentSummary.__dataclass_fields__ if name not in ("metrics", "tags")
]


@dataclass(frozen=True)
class _Position:
    """The last row of a page: its sort value (``None`` beyond the rows that have one) and its number."""

    value: str | float | None
    number: int


def find_page(
    session: Session, wanted: ExperimentFilter, sort_by: str, desc: bool, limit: int, cursor: str | None
) -> ExperimentPage:
    """The experiments that pass ``wanted``, in order, from ``cursor`` on.

    Raises:
        ConfigError: a limit outside 1..1000, or a cursor that is not one of this order.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise ConfigError([Problem("limit", limit, f"must be 1 to {MAX_LIMIT}")], source="query")
    position = _decode_cursor(cursor, sort_by, desc) if cursor else None
    rows = _find_rows(session, wanted, sort_by, desc, limit + 1, position)
    page, more = rows[:limit], len(rows) > limit
    next_cursor = _encode_cursor(page[-1], sort_by, desc) if more else None
    return ExperimentPage(tuple(summarize(session, [row.number for row in page])), next_cursor)


def summarize(session: Session, numbers: Sequence[int]) -> list[ExperimentSummary]:
    """Summaries of these rows, in this order, in three statements however many there are."""
    found = session.execute(select(Experiment.number, *SUMMARY_COLUMNS).where(Experiment.number.in_(numbers)))
    rows: dict[int, Sequence[Any]] = {number: values for number, *values in found}
    metrics: dict[int, dict[str, float]] = {number: {} for number in numbers}
    for number, name, value in session.execute(
        select(Metric.experiment_number, Metric.name, Metric.value)
        .where(Metric.experiment_number.in_(numbers))
        .order_by(Metric.experiment_number, Metric.name)
    ):
        metrics[number][name] = value
    tags: dict[int, list[str]] = {number: [] for number in numbers}
    for number, name in session.execute(
        select(Tag.experiment_number, Tag.name).where(Tag.experiment_number.in_(numbers)).order_by(Tag.name)
    ):
        tags[number].append(name)
    return [ExperimentSummary(*rows[n], metrics[n], tuple(tags[n])) for n in numbers]


def _find_rows(
    session: Session, wanted: ExperimentFilter, sort_by: str, desc: bool, count: int, after: _Position | None
) -> list[_Position]:
    """Rows with the sort value first, then as many without it as are missing."""
    conditions = _conditions(wanted)
    rows: list[_Position] = []
    if after is None or after.value is not None:
        rows = _rows_with_value(session, conditions, sort_by, desc, count, after)
        after = None
    if len(rows) < count and sort_by not in ("created_at", "name"):
        rows += _rows_without_value(session, conditions, sort_by, desc, count - len(rows), after)
    return rows


def _rows_with_value(
    session: Session,
    conditions: list[ColumnElement[bool]],
    sort_by: str,
    desc: bool,
    count: int,
    after: _Position | None,
) -> list[_Position]:
    value: ColumnElement[Any]
    number: ColumnElement[int]
    statement: Select[Any, int]
    if sort_by in SORT_COLUMNS:
        value, number = SORT_COLUMNS[sort_by].expression, Experiment.number.expression
        statement = select(value, number).where(value.is_not(None), *conditions)
    else:
        value, number = Metric.value.expression, Metric.experiment_number.expression
        joined = Experiment.number == Metric.experiment_number
        statement = select(value, number).join(Experiment, joined).where(Metric.name == sort_by, *conditions)
    if after is not None:
        place = tuple_(_from_json(after.value, sort_by), after.number)
        statement = statement.where(tuple_(value, number) < place if desc else tuple_(value, number) > place)
    order = (value.desc(), number.desc()) if desc else (value, number)
    rows = session.execute(statement.order_by(*order).limit(count))
    return [_Position(_to_json(value), number) for value, number in rows]


def _rows_without_value(
    session: Session,
    conditions: list[ColumnElement[bool]],
    sort_by: str,
    desc: bool,
    count: int,
    after: _Position | None,
) -> list[_Position]:
    if sort_by in SORT_COLUMNS:
        lacks: ColumnElement[bool] = SORT_COLUMNS[sort_by].is_(None)
    else:
        lacks = ~exists().where(Metric.experiment_number == Experiment.number, Metric.name == sort_by)
    statement = select(Experiment.number).where(lacks, *conditions)
    if after is not None:
        statement = statement.where(Experiment.number < after.number if desc else Experiment.number > after.number)
    order = Experiment.number.desc() if desc else Experiment.number
    return [_Position(None, number) for number in session.scalars(statement.order_by(order).limit(count))]


def _conditions(wanted: ExperimentFilter) -> list[ColumnElement[bool]]:
    bounds: list[tuple[Any, Callable[[Any], ColumnElement[bool]]]] = [
        (wanted.min_accuracy, Experiment.eval_accuracy.__ge__),
        (wanted.max_runtime, Experiment.train_runtime.__le__),
        (wanted.start_date, Experiment.created_at.__ge__),
        (wanted.end_date, Experiment.created_at.__le__),
        (wanted.model_name, Experiment.model_name.__eq__),
        (wanted.dataset_name, Experiment.dataset_name.__eq__),
        (wanted.status, Experiment.status.__eq__),
        (wanted.owner, Experiment.owner.__eq__),
        (wanted.sweep_id, Experiment.sweep_id.__eq__),
        (wanted.archived, Experiment.archived.is_),
        (wanted.tag, _has_tag),
    ]
    conditions = [holds(value) for value, holds in bounds if value is not None]
    words = (wanted.name or "").split()
    return conditions + [Experiment.name.icontains(word, autoescape=True) for word in words]


def _has_tag(tag: str) -> ColumnElement[bool]:
    return exists().where(Tag.experiment_number == Experiment.number, Tag.name == tag)


def _to_json(value: Any) -> str | float | None:
    return value.isoformat() if isinstance(value, datetime) else value


def _from_json(value: str | float | None, sort_by: str) -> Any:
    if sort_by == "created_at":
        return datetime.fromisoformat(str(value)).astimezone(UTC)
    return value


def _encode_cursor(last: _Position, sort_by: str, desc: bool) -> str:
    text = json.dumps([sort_by, desc, last.value, last.number], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str, sort_by: str, desc: bool) -> _Position:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        made_for, made_desc, value, number = json.loads(text)
        if (made_for, made_desc) != (sort_by, desc) or not isinstance(number, int):
            raise ValueError("another order")
        if value is not None and sort_by == "created_at":
            datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise ConfigError(
            [Problem("cursor", cursor[:40], "is not a cursor of this order; start again at the first page")],
            source="query",
        ) from None
    return _Position(value, number)
