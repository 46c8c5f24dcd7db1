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

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from loramill.config.schema import is_storable
from loramill.errors import ConfigError, Problem
from loramill.experiments.filters import ExperimentFilter, conditions_of
from loramill.experiments.models import Experiment, Metric
from loramill.experiments.summaries import ExperimentSummary, one_of, summarize

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
MAX_NAME = 255
MAX_NUMBER = 2**63 - 1
SMALL_RECORD = 2_000
SAMPLE = 200
ENOUGH = 4
GOLDEN_RATIO = 0.6180339887498949
"""A filter is narrow when fewer than ENOUGH of SAMPLE rows pass it; a small record needs no sample. Multiples of the
golden ratio spread evenly, and follow no rhythm of the rows."""

CHECKED = aliased(Experiment)
"""The row whose filter is checked after its place is known; made once, since an alias takes a millisecond to make."""


@dataclass(frozen=True)
class ExperimentPage:
    """Experiments in order, and where the next page begins (``None`` on the last one)."""

    items: tuple[ExperimentSummary, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class Order:
    """What to sort by: a column of ``SORT_COLUMNS``, or the name of a metric.

    Raises:
        ConfigError: no metric can have this name.
    """

    key: str = "created_at"
    desc: bool = True

    def __post_init__(self) -> None:
        if not (is_storable(self.key) and 0 < len(self.key) <= MAX_NAME):
            raise ConfigError([Problem("sort_by", ascii(self.key)[:40], "is not the name of a metric")], source="query")


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
    after, narrow = _decode_cursor(cursor, order) if cursor else (None, _is_narrow(session, wanted))
    find_places = _sort_matches if narrow else _walk_all
    places = find_places(session, wanted, order, limit + 1, after)
    page, more = places[:limit], len(places) > limit
    items = summarize(session, [place.number for place in page])
    return ExperimentPage(tuple(items), _encode_cursor(page[-1], order, narrow=narrow) if more else None)


def _walk_all(
    session: Session, wanted: ExperimentFilter, order: Order, count: int, after: _Place | None
) -> list[_Place]:
    """For a broad filter: rows with the sort value, then as many without it as are missing."""
    places: list[_Place] = []
    if after is None or after.value is not None:
        places = _walk(session, wanted, order, count, after)
        after = None
    if len(places) < count and order.key not in ALWAYS_THERE:
        places += _walk_without_value(session, wanted, order, count - len(places), after)
    return places


def _is_narrow(session: Session, wanted: ExperimentFilter) -> bool:
    """Whether few rows pass the filter, judged by a sample of the record."""
    if wanted.is_empty:
        return False
    newest = session.scalar(select(func.max(Experiment.number))) or 0
    if newest <= SMALL_RECORD:
        return True
    sample = [1 + int(newest * (place * GOLDEN_RATIO % 1)) for place in range(SAMPLE)]
    passes = one_of(session, CHECKED.number, sample), *conditions_of(wanted, CHECKED)
    return len(session.scalars(select(CHECKED.number).where(*passes).limit(ENOUGH)).all()) < ENOUGH


def _sort_matches(
    session: Session, wanted: ExperimentFilter, order: Order, count: int, after: _Place | None
) -> list[_Place]:
    """For a narrow filter: its rows by the filter's own index, then their values, sorted."""
    value: ColumnElement[Any]
    column = SORT_COLUMNS.get(order.key)
    if column is not None:
        matching = select(Experiment.number, column.label("value")).where(*conditions_of(wanted)).cte()
        value, number = matching.c.value, matching.c.number
        statement = select(value, number)
    else:
        matching = select(Experiment.number).where(*conditions_of(wanted)).cte()
        value, number = Metric.value.expression, matching.c.number
        has_metric = and_(Metric.experiment_number == number, Metric.name == order.key)
        statement = select(value, number).select_from(matching).outerjoin(Metric, has_metric)
    if after is not None:
        statement = statement.where(_beyond(value, number, order, after))
    statement = statement.order_by(value.is_(None), *_direction(value, number, order)).limit(count)
    return [_Place(*row) for row in session.execute(statement)]


def _walk(session: Session, wanted: ExperimentFilter, order: Order, count: int, after: _Place | None) -> list[_Place]:
    """Along the index of the sort value, each row looked up by its key, which is no scan.

    Conditions that the index can answer by itself stand beside it.
    """
    if order.key in SORT_COLUMNS:
        value, number = SORT_COLUMNS[order.key].expression, Experiment.number.expression
        indexed = {name: getattr(wanted, name) for name in ("archived", *INDEXED_WITH[order.key])}
        conditions = [value.is_not(None), *conditions_of(ExperimentFilter(**indexed))]
        rest = replace(wanted, **dict.fromkeys(indexed))
    else:
        value, number = Metric.value.expression, Metric.experiment_number.expression
        conditions, rest = [Metric.name == order.key], wanted
    if checks := conditions_of(rest, CHECKED):
        conditions.append(exists().where(CHECKED.number == number, *checks))
    if after is not None:
        here, there = tuple_(value, number), tuple_(after.value, after.number)
        conditions.append(here < there if order.desc else here > there)
    statement = select(value, number).where(*conditions).order_by(*_direction(value, number, order)).limit(count)
    return [_Place(*row) for row in session.execute(statement)]


def _walk_without_value(
    session: Session, wanted: ExperimentFilter, order: Order, count: int, after: _Place | None
) -> list[_Place]:
    """The rest of a broad filter's rows: those that lack the sort value."""
    number = Experiment.number
    if order.key in SORT_COLUMNS:
        lacks: ColumnElement[bool] = SORT_COLUMNS[order.key].is_(None)
    else:
        lacks = ~exists().where(Metric.experiment_number == number, Metric.name == order.key)
    statement = select(number).where(lacks, *conditions_of(wanted))
    if after is not None:
        statement = statement.where(number < after.number if order.desc else number > after.number)
    statement = statement.order_by(number.desc() if order.desc else number).limit(count)
    return [_Place(None, number) for number in session.scalars(statement)]


def _beyond(value: ColumnElement[Any], number: ColumnElement[int], order: Order, after: _Place) -> ColumnElement[bool]:
    """Whether a row comes after a place, rows without a value last."""
    if after.value is None:
        return and_(value.is_(None), number < after.number if order.desc else number > after.number)
    here, there = tuple_(value, number), tuple_(after.value, after.number)
    return or_(here < there if order.desc else here > there, value.is_(None))


def _direction(value: ColumnElement[Any], number: ColumnElement[int], order: Order) -> tuple[ColumnElement[Any], ...]:
    return (value.desc(), number.desc()) if order.desc else (value, number)


def _encode_cursor(last: _Place, order: Order, *, narrow: bool) -> str:
    """Where the next page begins, and by which plan, so that it need not be chosen again."""
    value = last.value.isoformat() if isinstance(last.value, datetime) else last.value
    text = json.dumps([order.key, order.desc, narrow, value, last.number], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str, order: Order) -> tuple[_Place, bool]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        key, desc, narrow, value, number = json.loads(text)
        if (key, desc) != (order.key, order.desc) or not 0 <= number <= MAX_NUMBER:
            raise ValueError("another order")
        if order.key == "created_at":
            value = datetime.fromisoformat(value).astimezone(UTC)
        elif not isinstance(value, str if order.key == "name" else (int, float, type(None))):
            raise TypeError("another type")
    except (ValueError, TypeError, OverflowError, RecursionError):
        problem = Problem("cursor", ascii(cursor)[:40], "is not a cursor of this order; start again at the first page")
        raise ConfigError([problem], source="query") from None
    return _Place(value, int(number)), bool(narrow)
