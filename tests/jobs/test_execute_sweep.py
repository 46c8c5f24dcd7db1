"""How the row of a sweep ends, after a worker has done it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import TrainingError
from loramill.experiments.models import Status
from loramill.jobs.control import get_job, request_resume
from loramill.jobs.execute_sweep import execute_sweep
from loramill.jobs.job_tables import JobKind, SweepJob
from loramill.jobs.lease import claim
from loramill.jobs.sweep import Sweep, new_sweep
from loramill.settings import Settings
from loramill.sweeps.search import Search
from small_models import save_small_model
from small_runs import small_config, write_rows

TWO_STEPS = {"training__num_train_epochs": 1, "training__per_device_train_batch_size": 64}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    save_small_model("bert", folder / "model")
    write_rows(folder / "rows")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def submit(config: ExperimentConfig, space: str, settings: Settings, database: Database) -> str:
    sweep = new_sweep(config, halving=None, search=Search((space,)))
    sweep.save(settings)
    with database.transaction() as session:
        session.add(
            SweepJob(id=sweep.sweep_id, name="small", request={}, status=Status.PENDING, created_at=datetime.now(UTC))
        )
    return sweep.sweep_id


def do(sweep_id: str, settings: Settings, database: Database) -> None:
    with database.transaction() as session:
        claimed = claim(session, sweep_id, worker="w")
    assert claimed is not None
    execute_sweep(claimed, settings=settings, database=database, should_stop=lambda: False)


def status_of(sweep_id: str, database: Database) -> tuple[str, str | None]:
    with database.reading() as session:
        job = get_job(session, sweep_id, JobKind.SWEEP)
        return job.status, job.error_code


def test_a_sweep_that_its_time_limit_ended_is_revoked_and_goes_on(
    given: Path, settings: Settings, database: Database
) -> None:
    config = small_config(given / "model", given / "rows", training__max_seconds=1e-9, **TWO_STEPS)
    sweep_id = submit(config, "training.seed=1,2", settings, database)
    do(sweep_id, settings, database)
    assert status_of(sweep_id, database) == (Status.REVOKED, None)
    told = (Sweep.load(settings, sweep_id).folder(settings) / "events.jsonl").read_text(encoding="utf-8")
    assert '"status":"REVOKED","code":"time_limit"' in told.splitlines()[-1]
    with database.transaction() as session:
        request_resume(session, sweep_id, JobKind.SWEEP)
    do(sweep_id, settings, database)
    assert status_of(sweep_id, database) == (Status.SUCCESS, None)


def test_a_sweep_of_which_every_trial_failed_has_failed(given: Path, settings: Settings, database: Database) -> None:
    config = small_config(given / "model", given / "rows", training__max_grad_norm=0, **TWO_STEPS)
    sweep_id = submit(config, "lora.lora_alpha=1e38,2e38", settings, database)
    with pytest.raises(TrainingError, match="2 FAILURE"):
        do(sweep_id, settings, database)
    assert status_of(sweep_id, database) == (Status.FAILURE, TrainingError.code)
