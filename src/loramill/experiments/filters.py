"""What a reader of the record may ask for, and the conditions it means."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, exists, select

from loramill.config.schema import is_storable
from loramill.errors import ConfigError, Problem
from loramill.experiments.models import Experiment, Tag

UNSTORABLE = "holds a character that no database can"


@dataclass(frozen=True)
class ExperimentFilter:
    """What a reader looks for; every field that is given must hold.

    Raises:
        ConfigError: a text that no database can hold, a number that is not finite, a time without a zone; names each.
    """

    name: str | None = None
    """Parts of the name, in any case and in any order."""
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
    stage: str | None = None
    language: str | None = None
    task: str | None = None
    archived: bool | None = False
    """Archived ones are hidden unless asked for: True shows only them, None shows all."""

    def __post_init__(self) -> None:
        faults = {name: _fault(value) for name, value in vars(self).items()}
        problems = [Problem(name, ascii(vars(self)[name])[:40], fault) for name, fault in faults.items() if fault]
        if problems:
            raise ConfigError(problems, source="query")

    @property
    def is_empty(self) -> bool:
        """Whether it lets through every experiment that a plain list shows."""
        return self == ExperimentFilter()


def through_the_day(moment: str) -> str:
    """A plain date as the last moment of its day, for the end of a range; other texts as they are."""
    return f"{moment}T23:59:59.999999" if re.fullmatch(r"\d{4}-\d{2}-\d{2}", moment, re.ASCII) else moment


def _fault(value: object) -> str:
    if isinstance(value, str) and not is_storable(value):
        return UNSTORABLE
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if isinstance(value, datetime) and value.tzinfo is None:
        return "needs a time zone"
    return ""


def conditions_of(wanted: ExperimentFilter, row: type[Experiment] = Experiment) -> list[ColumnElement[bool]]:
    """The filter as conditions on ``row``; all of them must hold.

    On the table itself they are made to find rows; on an alias of it, to check a row that is known.
    """
    asked: list[tuple[Any, Callable[[Any], ColumnElement[bool]]]] = [
        (wanted.min_accuracy, row.eval_accuracy.__ge__),
        (wanted.max_runtime, row.train_runtime.__le__),
        (wanted.start_date, row.created_at.__ge__),
        (wanted.end_date, row.created_at.__le__),
        (wanted.model_name, row.model_name.__eq__),
        (wanted.dataset_name, row.dataset_name.__eq__),
        (wanted.status, row.status.__eq__),
        (wanted.owner, row.owner.__eq__),
        (wanted.sweep_id, row.sweep_id.__eq__),
        (wanted.stage, row.stage.__eq__),
        (wanted.language, row.language.__eq__),
        (wanted.task, row.task.__eq__),
        (wanted.archived, row.archived.is_),
        (wanted.tag, _finds_tag if row is Experiment else partial(_checks_tag, row)),
    ]
    conditions = [holds(value) for value, holds in asked if value is not None]
    parts = (wanted.name or "").casefold().split()
    return conditions + [row.folded_name.contains(part, autoescape=True) for part in parts]


def _finds_tag(tag: str) -> ColumnElement[bool]:
    return Experiment.number.in_(select(Tag.experiment_number).where(Tag.name == tag))


def _checks_tag(row: type[Experiment], tag: str) -> ColumnElement[bool]:
    return exists().where(Tag.experiment_number == row.number, Tag.name == tag)
