from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.experiments.models import Experiment
from loramill.experiments.store import ExperimentStore, NewExperiment
from loramill.jobs.lease import Claim, claim


@pytest.fixture
def submit(database: Database) -> Callable[..., str]:
    """Adds a waiting experiment and returns its id."""

    def add(experiment_id: str = "job", **known: object) -> str:
        with database.transaction() as session:
            new = NewExperiment.from_config(experiment_id, ExperimentConfig(), created_at=datetime.now(UTC), **known)
            ExperimentStore(session).create(new)
            return new.id

    return add


@pytest.fixture
def take(database: Database) -> Callable[..., Claim]:
    """Claims a waiting experiment, which must succeed."""

    def claimed(experiment_id: str = "job", worker: str = "worker 1") -> Claim:
        with database.transaction() as session:
            taken = claim(session, experiment_id, worker=worker)
        assert taken is not None
        return taken

    return claimed


@pytest.fixture
def row(database: Database) -> Callable[..., Experiment]:
    """An experiment as the database has it now."""

    def read(experiment_id: str = "job") -> Experiment:
        with database.reading() as session:
            return ExperimentStore(session).get(experiment_id)

    return read
