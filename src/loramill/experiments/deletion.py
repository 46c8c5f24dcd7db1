"""Deleting an experiment: the row first, and then, if asked for, its files."""

from __future__ import annotations

import shutil
from pathlib import Path

from loramill.database import Database
from loramill.errors import NotFoundError
from loramill.experiments.folder import ExperimentFolder, results_holding
from loramill.experiments.store import ExperimentStore
from loramill.files import named_storage_errors


def delete_experiment(database: Database, results_folder: Path, experiment_id: str, *, files: bool) -> None:
    """Remove an experiment from the record, with its folder if ``files``; a folder that stays can be reindexed.

    Raises:
        NotFoundError: no experiment has this id.
        ConflictError: it is at work, in production, or named by an alias.
        StorageError: the files cannot be removed; the row is gone then.
    """
    with database.transaction() as session:
        store = ExperimentStore(session)
        results = results_holding(results_folder, experiment_id, store.get(experiment_id).config)
        store.delete(experiment_id)
    if files:
        delete_files(results, experiment_id)


def delete_files(results_folder: Path, experiment_id: str) -> None:
    """Remove the folder of an experiment whose row is gone; nothing when there is none.

    It is renamed in one step before it is emptied, so that a crash leaves no half experiment under its id.

    Args:
        results_folder: see ``results_holding``.

    Raises:
        StorageError: the files cannot be removed.
    """
    try:
        folder = ExperimentFolder.open(results_folder, experiment_id)
    except NotFoundError:
        return
    with named_storage_errors(folder.path):
        doomed = folder.path.with_name(f".deleted-{experiment_id}")
        folder.path.rename(doomed)
        shutil.rmtree(doomed)
