"""Bringing in runs that other tools recorded.

Each becomes a folder like any other, with config, metrics, events and record, so that lists, comparisons and
``reindex`` treat it as they treat our own. A tag names where it came from, and keeps it from coming twice.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from loramill.config.keys import set_key
from loramill.config.schema import shortened_name
from loramill.database import Database
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Status
from loramill.experiments.record_file import changing
from loramill.experiments.store import ExperimentStore, NewExperiment

SECTIONS = ("train", "eval", "system")
NO_METRIC = ("time", "type", "step", "epoch")
"""What an event holds besides numbers that were measured."""

Warn = Callable[[str], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ForeignRun:
    """A run as it was found elsewhere.

    Attributes:
        origin: unique name of the run at its source; becomes a tag.
        parameters: dotted key -> value.
        metrics: flat name -> last value, whatever it is there.
        events: lines for ``events.jsonl``, likewise.
    """

    source: str
    origin: str
    name: str
    status: Status
    created_at: datetime
    finished_at: datetime | None
    parameters: Mapping[str, Any]
    metrics: Mapping[str, Any]
    events: list[dict[str, Any]]
    owner: str | None = None
    tags: tuple[str, ...] = ()
    model_name: str = "unknown"
    dataset_name: str = "unknown"


def add_foreign_runs(
    database: Database, results_folder: Path, runs: Iterable[ForeignRun], warn: Warn = log.warning
) -> list[str]:
    """Record each run that did not come earlier; returns the ids of the new experiments.

    Args:
        warn: told of each run from which something had to be left out, what, and how much of it.
    """
    added = []
    for run in runs:
        with database.reading() as session:
            everywhere = ExperimentFilter(tag=run.origin, archived=None)
            known = ExperimentStore(session).list_page(everywhere, limit=1).items
        if not known:
            added.append(_add(database, results_folder, _without_losses(run, warn)))
    return added


def _without_losses(run: ForeignRun, warn: Warn) -> ForeignRun:
    """The run without the values of its metrics that are no finite numbers, which no file and no database keeps."""
    lost: Counter[str] = Counter()
    events = [_plain_event(event, lost) for event in run.events]
    metrics = {name: value for name, value in run.metrics.items() if _is_number(value)}
    lost |= Counter(run.metrics.keys() - metrics.keys())  # the last of a history that was counted already
    if lost:
        counts = ", ".join(f"{name} ({count})" for name, count in sorted(lost.items()))
        warn(f"{run.name}: left out {lost.total()} values that are no finite numbers: {counts}.")
    return replace(run, events=events, metrics=metrics)


def _plain_event(event: Mapping[str, Any], lost: Counter[str]) -> dict[str, Any]:
    """An event with just the numbers that can be kept; ``lost`` counts the others by their name."""
    kept: dict[str, Any] = {}
    for key, value in event.items():
        if key == "metrics":
            kept[key] = _plain_event(value, lost)
        elif _is_number(value) or key in NO_METRIC:
            kept[key] = value
        else:
            lost[key] += 1
    return kept


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _add(database: Database, results_folder: Path, run: ForeignRun) -> str:
    folder = ExperimentFolder.create(results_folder, _plain_name(run.name), run.created_at.astimezone())
    config: dict[str, Any] = {"experiment_name": run.name}
    for key, value in run.parameters.items():
        set_key(config, key, value)
    folder.write_config(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    folder.write_metrics(_sections(run.metrics))
    for event in run.events:
        folder.append_event(event)
    new = NewExperiment(
        id=folder.id,
        name=run.name,
        config=config,
        model_name=run.model_name[:255],
        dataset_name=run.dataset_name[:255],
        task="SEQ_CLS",
        created_at=run.created_at,
        owner=run.owner,
        source=run.source,
    )
    with changing(database, results_folder, folder.id) as (store, _):
        store.create(new)
        store.record_metrics(folder.id, _sections(run.metrics))
        store.add_tags(folder.id, [run.origin, *run.tags])
        row = store.get(folder.id)
        row.status, row.started_at, row.finished_at = run.status, run.created_at, run.finished_at
    return folder.id


def _sections(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Flat names -> the sections of ``metrics.json``; other names stay beside them."""
    tree: dict[str, Any] = {}
    for name, value in metrics.items():
        section, _, rest = name.partition("_")
        if section in SECTIONS and rest:
            tree.setdefault(section, {})[rest] = value
        else:
            tree[name] = value
    return tree


def _plain_name(name: str) -> str:
    """A run's name as part of a folder's name."""
    kept = "".join(character if character.isalnum() or character in " ._-" else "_" for character in name)
    return shortened_name(kept.strip(" ._-")) or "imported"
