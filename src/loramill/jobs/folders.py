"""The folder of accepted work: taken, written down, read again, and made again from its row."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from datetime import datetime

from loramill.config.load import dump_config, parse_config, read_yaml
from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.store import ExperimentStore
from loramill.settings import Settings


@contextlib.contextmanager
def new_folders() -> Iterator[list[ExperimentFolder]]:
    """A list for the folders that the block makes; they go again when it fails, as nothing was recorded of them."""
    made: list[ExperimentFolder] = []
    try:
        yield made
    except BaseException:
        for folder in made:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def reserve_folder(config: ExperimentConfig, settings: Settings) -> ExperimentFolder:
    """A new folder whose name is taken; only ``write_down`` sees to it that it outlives a power failure."""
    results = settings.home / config.training.output_dir
    return ExperimentFolder.reserve(results, config.experiment_name, datetime.now().astimezone())


def write_down(folder: ExperimentFolder, config: ExperimentConfig) -> None:
    """Complete the folder and put the config into it, to stay.

    A worker that is faster, or comes after a crash in between, takes the config from the row (``restore_folder``).
    """
    folder.complete()
    folder.write_config(dump_config(config))


def restore_folder(database: Database, settings: Settings, experiment_id: str) -> ExperimentFolder:
    """The folder of a submitted experiment, made again from its row as far as it is missing."""
    folder = ExperimentFolder(settings.results_folder / experiment_id)
    if not folder.config_file.is_file():
        with database.reading() as session:
            config = parse_config(ExperimentStore(session).get(experiment_id).config, source="row")
        write_down(folder, config)
    return ExperimentFolder.open(settings.results_folder, experiment_id)


def recorded_config(folder: ExperimentFolder) -> ExperimentConfig:
    """The config that an experiment was submitted with."""
    return parse_config(read_yaml(folder.config_file), source=str(folder.config_file))
