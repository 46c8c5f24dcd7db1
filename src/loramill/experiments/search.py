"""One page of the record, among very many rows, filtered and sorted by any metric.

Pages are found by keyset: the cursor holds the sort value and the number of the last row, and the next page is what
lies beyond it. The thousandth page costs what the first one does, and rows that arrive meanwhile shift nothing.
Rows that lack the sort value come last.

Two plans find a page. A narrow filter is answered first and its few rows are sorted; a broad one is checked row by row
while walking the index of the sort value. Either alone is slow where the other is fast, and the databases' planners
know too little to choose (SQLite knows no distribution of values, and neither knows what a LIMIT saves).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from loramill.errors import ConfigError, Problem
from loramill.experiments.filters import ExperimentFilter, conditions_of
from loramill.experiments.models import Experiment, Metric
from loramill.experiments.summaries import ExperimentSummary, summarize

SORT_COLUMNS: dict[str, InstrumentedAttribute[Any]] = {
    "created_at": Experiment.created_at,
    "name": Experiment.folded_name,
    "train_runtime": Experiment.train_runtime,
    "eval_accuracy": Experiment.eval_accuracy,
}
"""Sort keys that are columns; every other key is the name of a metric."""

INDEXED_WITH: dict[str, tuple[str, ...]] = {
    "created_at": ("start_date", "end_date", "status", "owner", "model_name", "dataset_name", "sweep_id"),
    "name": (),
    "train_runtime": ("max_runtime",),
    "eval_accuracy": ("min_accuracy",),
}
"""Sort column -> fields of the filter that the same index answers."""

ALWAYS_THERE = ("created_at", "name")
MAX_LIMIT = 1000
NARROW = 2000
"""Filters that at most so many rows pass are answered before sorting."""


@dataclass(frozen=True)
class ExperimentPage:
    """Experiments in order, and where the next page begins (``None`` on the last one)."""

    items: tuple[ExperimentSummary, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class Order:
    """What to sort by: a column of ``SORT_COLUMNS``, or the name of a metric."""

    key: str = "created_at"
    desc: bool = True


@dataclass(frozen=True)
class _Place:
    """A row's place in an order; ``value`` is ``None`` among the rows that lack one."""

    value: Any
    number: int


def find_page(
    session: Session, wanted: ExperimentFilter, order: Order, limit: int, cursor: str | None
) -> ExperimentPage:
    """The experiments that pass ``wanted``, in order, from ``cursor`` on.

    Raises:
        ConfigError: a limit outside 1..1000, or a cursor that is not one of this order.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise ConfigError([Problem("limit", limit, f"must be 1 to {MAX_LIMIT}")], source="query")
    after = _decode_cursor(cursor, order) if cursor else None
    places = _find_places(session, wanted, order, limit + 1, after)
    page, more = places[:limit], len(places) > limit
    items = summarize(session, [place.number for place in page])
    return ExperimentPage(tuple(items), _encode_cursor(page[-1], order) if more else None)


def _find_places(
    session: Session, wanted: ExperimentFilter, order: Order, count: int, after: _Place | None
) -> list[_Place]:
    """Rows with the sort value first, then as many without it as are missing."""
    matching = _narrow(session, wanted)
    places: list[_Place] = []
    if after is None or after.value is not None:
        places = _with_value(session, wanted, matching, order, count, after)
        after = None
    if len(places) < count and order.key not in ALWAYS_THERE:
        places += _without_value(session, wanted, matching, order, count - len(places), after)
    return places


def _narrow(session: Session, wanted: ExperimentFilter) -> list[int] | None:
    """Numbers of all rows that pass, when they are few; ``None`` when they are many."""
    if wanted.is_empty:
        return None
    statement = select(Experiment.number).where(*conditions_of(wanted)).limit(NARROW + 1)
    numbers = list(session.scalars(statement))
    return numbers if len(numbers) <= NARROW else None


def _with_value(
    session: Session,
    wanted: ExperimentFilter,
    matching: list[int] | None,
    order: Order,
    count: int,
    after: _Place | None,
) -> list[_Place]:
    value, number, statement = _source(order, wanted)
    statement = statement.where(number.in_(matching) if matching is not None else _passes(number, wanted))
    if after is not None:
        here, there = tuple_(value, number), tuple_(after.value, after.number)
        statement = statement.where(here < there if order.desc else here > there)
    ordered = (value.desc(), number.desc()) if order.desc else (value, number)
    return [_Place(*row) for row in session.execute(statement.order_by(*ordered).limit(count))]


def _source(order: Order, wanted: ExperimentFilter) -> tuple[ColumnElement[Any], ColumnElement[int], Select[Any, int]]:
    """Where an order's values are: (value, number, select of both).

    Conditions that an index can answer together with the order stand here; ``_passes`` checks the others.
    """
    if order.key not in SORT_COLUMNS:
        metric = Metric.value.expression, Metric.experiment_number.expression
        return *metric, select(*metric).where(Metric.name == order.key)
    column = SORT_COLUMNS[order.key].expression, Experiment.number.expression
    indexed = INDEXED_WITH[order.key]
    same = replace(ExperimentFilter(archived=None), **{name: getattr(wanted, name) for name in indexed})
    return *column, select(*column).where(column[0].is_not(None), *conditions_of(same))


def _passes(number: ColumnElement[int], wanted: ExperimentFilter) -> ColumnElement[bool]:
    """Whether the experiment of this number passes: a look-up by key, which no planner turns into a scan."""
    row = aliased(Experiment)
    return exists().where(row.number == number, *conditions_of(wanted, row))


def _without_value(
    session: Session,
    wanted: ExperimentFilter,
    matching: list[int] | None,
    order: Order,
    count: int,
    after: _Place | None,
) -> list[_Place]:
    if order.key in SORT_COLUMNS:
        lacks: ColumnElement[bool] = SORT_COLUMNS[order.key].is_(None)
    else:
        lacks = ~exists().where(Metric.experiment_number == Experiment.number, Metric.name == order.key)
    passes = [Experiment.number.in_(matching)] if matching is not None else conditions_of(wanted)
    statement = select(Experiment.number).where(lacks, *passes)
    if after is not None:
        beyond = Experiment.number < after.number if order.desc else Experiment.number > after.number
        statement = statement.where(beyond)
    ordered = Experiment.number.desc() if order.desc else Experiment.number
    return [_Place(None, number) for number in session.scalars(statement.order_by(ordered).limit(count))]


def _encode_cursor(last: _Place, order: Order) -> str:
    value = last.value.isoformat() if isinstance(last.value, datetime) else last.value
    text = json.dumps([order.key, order.desc, value, last.number], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str, order: Order) -> _Place:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        key, desc, value, number = json.loads(text)
        if (key, desc) != (order.key, order.desc) or not isinstance(number, int):
            raise ValueError("another order")
        if order.key == "created_at":
            value = datetime.fromisoformat(value).astimezone(UTC)
        elif not isinstance(value, str if order.key == "name" else (int, float, type(None))):
            raise TypeError("another type")
    except (ValueError, TypeError):
        problem = Problem("cursor", cursor[:40], "is not a cursor of this order; start again at the first page")
        raise ConfigError([problem], source="query") from None
    return _Place(value, number)
