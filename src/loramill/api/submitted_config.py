"""What a config may say when it comes over the network: nothing that leads to other people's files."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy.orm import Session

from loramill.auth.permissions import CurrentUser, check_task_owner
from loramill.base_models import PACKAGE_PREFIX
from loramill.config.schema import ExperimentConfig
from loramill.data.datasets import DATASET_ID, DatasetStore
from loramill.database import Database
from loramill.errors import ConfigError, Problem
from loramill.jobs.datasets import COLUMNS, uses_of

RESULTS = "results"
SAMPLE, VERSION = "sample:", "version:"
STORED_ID = re.compile(r"[0-9a-f]{32}")


def check_submitted(config: ExperimentConfig, user: CurrentUser, database: Database) -> ExperimentConfig:
    """Refuse paths of this machine; administrators may name any but where experiments are kept.

    Returns:
        The config with an uploaded data set replaced by the stored rows that it holds now, so that the run can be
        repeated exactly.

    Raises:
        ConfigError: every key that names something of this machine, or a data set that is not there.
        PermissionDeniedError: it names somebody else's data set.
    """
    config, problems = _with_stored_rows(config, user, database)
    if config.training.output_dir != RESULTS:
        problems.append(Problem("training.output_dir", config.training.output_dir, f"must be {RESULTS!r} here"))
    if not user.is_admin:
        if is_path(config.data.dataset_name, (SAMPLE, VERSION)):
            problems.append(_not_here("data.dataset_name", config.data.dataset_name))
        if is_path(config.model.name, (PACKAGE_PREFIX,)):
            problems.append(_not_here("model.name", config.model.name))
    if problems:
        raise ConfigError(problems, source="config")
    return config


def _with_stored_rows(
    config: ExperimentConfig, user: CurrentUser, database: Database
) -> tuple[ExperimentConfig, list[Problem]]:
    """A config that names stored rows by their own ids, and what is wrong with the name."""
    name = config.data.dataset_name
    named = DATASET_ID.fullmatch(name)
    with database.reading() as session:
        if named is None:
            wrong = name.startswith(VERSION) and not user.is_admin and not _may_read(session, name, user)
            return config, [_not_here("data.dataset_name", name)] if wrong else []
        store = DatasetStore(session)
        dataset = store.find(named["id"])
        if dataset is None:
            return config, [Problem("data.dataset_name", name, "is no data set; list yours: GET /datasets")]
        check_task_owner(user, dataset.owner)
        number = int(named["version"]) if named["version"] else None
        info = next((found for found in store.versions(dataset)[::-1] if number in (None, found.row.version)), None)
    if info is None:
        return config, [Problem("data.dataset_name", name, "has no such version")]
    stored = {"dataset_name": info.dataset_name, **dict.fromkeys(COLUMNS)}  # stored rows have columns of known names
    return config.model_copy(update={"data": config.data.model_copy(update=stored)}), []


def _may_read(session: Session, name: str, user: CurrentUser) -> bool:
    """Whether a user has uploaded these stored rows, or trained on them; whole ids only, so that nobody guesses."""
    parts = name.removeprefix(VERSION).split("+", 1)
    return all(
        STORED_ID.fullmatch(part)
        and (DatasetStore(session).holds(user.id, part) or bool(uses_of(session, [part], user.id)))
        for part in parts
    )


def is_path(name: str, schemes: tuple[str, ...]) -> bool:
    """Whether a name would be looked up in this machine's files: judged by its form, and by what is there."""
    if name.startswith(schemes):
        return False
    parts = Path(name).parts
    if name.startswith((".", "~")) or "\\" in name or ".." in parts or Path(name).is_absolute() or len(parts) > 2:
        return True
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return True


def _not_here(key: str, name: str) -> Problem:
    return Problem(key, name[:80], "is data of the server, which only administrators may name")
