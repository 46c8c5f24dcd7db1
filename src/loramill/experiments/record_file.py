"""``record.json``: what only the database knows of an experiment, kept beside its files.

Owner, tags, notes, stage, aliases and history come from people, not from training. Whoever submits a run, changes them
or records how it ended saves this file after the commit, so that ``reindex`` can rebuild the whole record from the
folders.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, Field, ValidationError
from sqlalchemy import or_, select
from sqlalchemy.exc import StatementError

from loramill.database import Database
from loramill.errors import ConfigError, CorruptFileError
from loramill.experiments.folder import ExperimentFolder, read_json, results_holding
from loramill.experiments.models import FINISHED, Experiment, Status
from loramill.experiments.registry import ModelRegistry, RegistryMove
from loramill.experiments.store import ExperimentStore, NewExperiment
from loramill.files import write_json

RECORD_FILE = "record.json"
FOLDER_TIME = re.compile(r"_(\d{8}_\d{6})(?:_\d+)?$")
BATCH = 500
SILENT_SECONDS = 600
"""A run at work says how the machine is doing every second; one that has been silent for so long was killed."""
OUTCOME = ("status", "started_at", "finished_at", "error_code", "error_message", "notes", "archived", "stage")
IDENTITY = (
    "name", "owner", "model_name", "dataset_name", "task", "language", "source", "created_at", "sweep_id",
    "parent_id", "parent_relation",
)  # fmt: skip


class SavedRecord(BaseModel):
    """What ``record.json`` holds. Anybody may have edited or damaged it, so it is checked before it is believed."""

    name: str
    owner: str | None = None
    model_name: str
    dataset_name: str
    task: str
    language: str | None = None
    source: str = "loramill"
    created_at: AwareDatetime
    sweep_id: str | None = None
    parent_id: str | None = None
    parent_relation: str | None = None
    status: Status
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    error_code: str | None = None
    error_message: str | None = None
    notes: str = ""
    archived: bool = False
    stage: str | None = None
    tags: list[str] = Field(default_factory=list)
    data: dict[str, list[str]] = Field(default_factory=dict)
    aliases: list[str] = Field(default_factory=list)
    history: list[RegistryMove] = Field(default_factory=list)


@dataclass(frozen=True)
class ReindexReport:
    """What ``reindex`` did: ids it added, how many it knew, and (id, reason) of those it could not read."""

    added: tuple[str, ...]
    known: int
    unreadable: tuple[tuple[str, str], ...]


@contextlib.contextmanager
def changing(
    database: Database, results_folder: Path, experiment_id: str
) -> Iterator[tuple[ExperimentStore, ModelRegistry]]:
    """Change what people say of an experiment in one transaction, and save ``record.json`` once it is committed."""
    with database.transaction() as session:
        registry = ModelRegistry(session)
        yield ExperimentStore(session), registry
    for touched in {experiment_id, *registry.touched}:
        save_record(database, results_folder, touched)


def save_record(database: Database, results_folder: Path, experiment_id: str) -> None:
    """Write ``record.json`` as the database has it now; nothing when the experiment has no folder.

    Raises:
        NotFoundError: no experiment has this id.
        StorageError: the file cannot be written.
    """
    with database.reading() as session:
        store = ExperimentStore(session)
        record = _describe(store, ModelRegistry(session), experiment_id)
        results = results_holding(results_folder, experiment_id, store.get(experiment_id).config)
    path = results / experiment_id
    if path.is_dir():
        write_json(path / RECORD_FILE, record)


def save_records(database: Database, results_folder: Path, job_id: str) -> None:
    """``save_record`` for the run that a job is, or for each trial of a sweep.

    Raises:
        StorageError: a file cannot be written.
    """
    with database.reading() as session:
        ours = or_(Experiment.id == job_id, Experiment.sweep_id == job_id)
        names = session.scalars(select(Experiment.id).where(ours)).all()
    for name in names:
        save_record(database, results_folder, name)


def reindex(database: Database, results_folder: Path) -> ReindexReport:
    """Add every folder's experiment that the database lacks; rows that are there stay as they are."""
    records: list[tuple[ExperimentFolder, SavedRecord]] = []
    unreadable: list[tuple[str, str]] = []
    for folder in iter_folders(results_folder):
        with _noting(unreadable, folder):
            records.append((folder, _read_record(folder)))
    records.sort(key=lambda found: (found[1].created_at, found[0].id))
    added: list[str] = []
    known = 0
    for first in range(0, len(records), BATCH):
        with database.transaction() as session:
            store, registry = ExperimentStore(session), ModelRegistry(session)
            for folder, record in records[first : first + BATCH]:
                if store.find(folder.id) is not None:
                    known += 1
                    continue
                with _noting(unreadable, folder), session.begin_nested():
                    _restore(store, registry, folder, record)
                    added.append(folder.id)
    return ReindexReport(tuple(added), known, tuple(sorted(unreadable)))


@contextlib.contextmanager
def _noting(unreadable: list[tuple[str, str]], folder: ExperimentFolder) -> Iterator[None]:
    """Note a folder with a damaged file, or with what no database takes, and go on with the next."""
    try:
        yield
    except (CorruptFileError, ConfigError) as error:
        unreadable.append((folder.id, error.message))
    except (OSError, StatementError) as error:
        unreadable.append((folder.id, str(error.orig if isinstance(error, StatementError) else error)))


def iter_folders(results_folder: Path) -> list[ExperimentFolder]:
    """Every experiment folder, sorted by id: the folders that hold a ``config.yaml``."""
    files = sorted(results_folder.glob("*/config.yaml"))
    return [ExperimentFolder(file.parent) for file in files if not file.parent.name.startswith(".")]  # half deleted


def _describe(store: ExperimentStore, registry: ModelRegistry, experiment_id: str) -> dict[str, Any]:
    summary = store.get_summary(experiment_id).as_dict()
    return {
        **{name: summary[name] for name in (*IDENTITY, *OUTCOME)},
        "tags": list(summary["tags"]),
        "data": store.data_of(experiment_id),
        "aliases": registry.aliases(experiment_id),
        "history": [move.as_dict() for move in registry.history(experiment_id)],
    }


def _read_record(folder: ExperimentFolder) -> SavedRecord:
    """The saved record; what it does not know, and how a run ended since it was saved, the other files tell."""
    record = read_json(folder.path / RECORD_FILE) or _infer_identity(folder)
    if record.get("status") not in list(FINISHED):
        record |= _infer_outcome(folder)
    try:
        return SavedRecord.model_validate(record)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise CorruptFileError(f"{folder.path / RECORD_FILE} is not a record: {faults}") from error


def _infer_identity(folder: ExperimentFolder) -> dict[str, Any]:
    config = folder.read_config_tree()
    model, data = _section(config, "model"), _section(config, "data")
    dataset = str(data.get("dataset_name", "unknown"))
    return {
        "name": str(config.get("experiment_name", folder.id)),
        "model_name": str(model.get("name", "unknown")),
        "dataset_name": f"{dataset}/{data['dataset_config']}" if data.get("dataset_config") else dataset,
        "task": str(_section(config, "lora").get("task_type", "SEQ_CLS")),
        "created_at": _created_at(folder),
        "data": _data_versions(folder.read_data()),
    }


def _infer_outcome(folder: ExperimentFolder) -> dict[str, Any]:
    events = folder.read_events()
    times = [moment for event in events if (moment := _moment(event.get("time")))]
    status = _infer_status(folder, events)
    if (
        status in (Status.STARTED, Status.PROGRESS)
        and time.time() - folder.events_file.stat().st_mtime > SILENT_SECONDS
    ):
        status = Status.REVOKED  # nobody is left to say so
    return {
        "status": status,
        "started_at": times[0] if times else None,
        "finished_at": times[-1] if times and status in FINISHED else None,
    }


def _infer_status(folder: ExperimentFolder, events: list[dict[str, Any]]) -> str:
    statuses = [event["status"] for event in events if event.get("type") == "status" and event.get("status")]
    if statuses and statuses[-1] in list(Status):
        return str(statuses[-1])
    return Status.SUCCESS if folder.read_metrics() else Status.FAILURE


def _created_at(folder: ExperimentFolder) -> datetime:
    """The local time in the folder's name, or else the time of its config."""
    found = FOLDER_TIME.search(folder.id)
    try:
        return datetime.strptime(found[1], "%Y%m%d_%H%M%S").astimezone(UTC) if found else _changed_at(folder)
    except ValueError:
        return _changed_at(folder)


def _changed_at(folder: ExperimentFolder) -> datetime:
    return datetime.fromtimestamp(folder.config_file.stat().st_mtime, UTC)


def _data_versions(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """Role -> version ids of ``data.json``."""
    return {role: [str(data[role])] for role in ("train", "eval") if data.get(role)}


def _restore(store: ExperimentStore, registry: ModelRegistry, folder: ExperimentFolder, record: SavedRecord) -> None:
    config, metrics = folder.read_config_tree(), folder.read_metrics()  # before anything is written
    identity = {name: getattr(record, name) for name in IDENTITY}
    store.create(NewExperiment(id=folder.id, config=config, **identity))
    store.record_metrics(folder.id, metrics)
    store.add_tags(folder.id, record.tags)
    for role, versions in record.data.items():
        store.link_data(folder.id, role, versions)
    experiment = store.get(folder.id)
    for name in OUTCOME:
        setattr(experiment, name, getattr(record, name))
    registry.restore(folder.id, record.history, record.aliases)


def _section(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = tree.get(name)
    return section if isinstance(section, Mapping) else {}


def _moment(seconds: object) -> datetime | None:
    """A time of ``events.jsonl``; nothing for what is none."""
    if not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
