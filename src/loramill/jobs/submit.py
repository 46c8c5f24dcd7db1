"""Accepting work: a folder and a row first, the message to the queue last."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from loramill.config.load import dump_config
from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.store import ExperimentStore, NewExperiment
from loramill.settings import Settings


def submit_training(
    config: ExperimentConfig,
    *,
    settings: Settings,
    database: Database,
    enqueue: Callable[[str], None],
    owner: str | None = None,
) -> ExperimentFolder:
    """Record an experiment as PENDING and hand its id to ``enqueue``.

    The row is the truth and the message only a hint, so the message leaves after the commit: a worker never hears of
    an experiment that is not there.

    Raises:
        DiskFullError, UnwritableError, StorageError: nothing was recorded.
    """
    folder = create_folder(config, settings)
    with database.transaction() as session:
        ExperimentStore(session).create(NewExperiment.from_config(folder.id, config, owner=owner))
    enqueue(folder.id)
    return folder


def create_folder(config: ExperimentConfig, settings: Settings) -> ExperimentFolder:
    """A new experiment folder that holds its config."""
    results = settings.home / config.training.output_dir
    folder = ExperimentFolder.create(results, config.experiment_name, datetime.now().astimezone())
    folder.write_config(dump_config(config))
    return folder
