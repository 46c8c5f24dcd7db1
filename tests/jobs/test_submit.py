"""What could not be recorded leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import event

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import DatabaseUnavailableError
from loramill.jobs.submit import submit_training
from loramill.jobs.sweep import SweepRunner, new_sweep
from loramill.settings import Settings


def submit_run(settings: Settings, database: Database) -> None:
    submit_training(ExperimentConfig(), settings=settings, database=database, enqueue=lambda _experiment_id: None)


def submit_trials(settings: Settings, database: Database) -> None:
    sweep = new_sweep(ExperimentConfig(), halving=None)
    runner = SweepRunner(
        sweep, settings=settings, database=database, on_event=lambda _event: None, should_stop=lambda: False
    )
    runner.submit(ExperimentConfig(), [{"lora.r": 4}, {"lora.r": 8}])


@pytest.mark.parametrize("submit", [submit_run, submit_trials])
def test_a_database_that_refuses_the_row_leaves_no_folder(
    submit: Callable[[Settings, Database], None], tmp_path: Path, database: Database
) -> None:
    def refuse(_connection: object) -> None:
        raise DatabaseUnavailableError("The disk of the database is full.")

    settings = Settings(home=tmp_path)
    event.listen(database.engine, "commit", refuse)
    with pytest.raises(DatabaseUnavailableError):
        submit(settings, database)
    event.remove(database.engine, "commit", refuse)
    assert list(settings.results_folder.iterdir()) == []
    submit(settings, database)
    assert list(settings.results_folder.iterdir()) != []
