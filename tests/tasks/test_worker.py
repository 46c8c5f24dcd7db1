"""A real worker, its child processes and the embedded queue, on a small run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from loramill.database import Database
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import FINISHED, Experiment, Status
from loramill.jobs.control import request_cancel, request_resume
from loramill.jobs.submit import submit_training
from loramill.settings import Settings
from loramill.tasks.broker import Broker, open_broker
from loramill.tasks.celery_app import QUEUE, Publisher, create_celery
from small_runs import small_config

StartWorker = Callable[[], subprocess.Popen[bytes]]
WaitFor = Callable[..., Experiment]

LONG = {"training.num_train_epochs": 4000, "training.save_steps": 20}


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    with open_broker(settings) as opened:
        yield opened


@pytest.fixture
def publish(broker: Broker) -> Callable[[str], None]:
    return Publisher(create_celery(broker)).publish


@pytest.fixture
def submit(settings: Settings, home_database: Database, publish: Callable[[str], None]) -> Callable[..., str]:
    def add(**changes: object) -> str:
        config = small_config(settings.home / "model", settings.home / "rows", **changes)
        return submit_training(config, settings=settings, database=home_database, enqueue=publish).id

    return add


def ended(row: Experiment) -> bool:
    return row.status in FINISHED


def at_work(row: Experiment) -> bool:
    return row.status == Status.PROGRESS


def saved(row: Experiment) -> bool:
    return row.status == Status.PROGRESS and row.resume


def children(experiment_id: str) -> list[psutil.Process]:
    """Processes that train it: children are started before they get their job, so their commands do not name it."""
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "loramill.jobs.child" in (process.info["cmdline"] or [])
    ]
    return [process for process in found if holds_files_of(process, experiment_id)]


def holds_files_of(process: psutil.Process, experiment_id: str) -> bool:
    try:
        return any(experiment_id in file.path for file in process.open_files())
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_job_is_done_once_however_often_it_is_announced(
    submit: Callable[..., str], publish: Callable[[str], None], start_worker: StartWorker, wait_for: WaitFor,
    settings: Settings, broker: Broker,
) -> None:  # fmt: skip
    job = submit()
    for hostile in (job, job, "../../etc", "nothing", ""):
        publish(hostile)
    worker = start_worker()
    row = wait_for(job, ended)
    assert (row.status, row.attempt) == (Status.SUCCESS, 1)
    folder = ExperimentFolder.open(settings.results_folder, job)
    statuses = [event["status"] for event in folder.read_events() if event["type"] == "status"]
    assert statuses == ["STARTED", "SUCCESS"]
    assert folder.final_model.is_dir()
    mapped = Path(f"/proc/{worker.pid}/maps")
    assert not mapped.exists() or "libtorch" not in mapped.read_text(), "a worker's memory is not for torch"
    until = time.monotonic() + 10
    while broker.client.llen(QUEUE) and time.monotonic() < until:
        time.sleep(0.1)
    assert broker.client.llen(QUEUE) == 0


@pytest.mark.slow
def test_a_cancelled_job_ends_in_ten_seconds_and_can_go_on(
    submit: Callable[..., str], publish: Callable[[str], None], start_worker: StartWorker, wait_for: WaitFor,
    home_database: Database,
) -> None:  # fmt: skip
    job = submit(**LONG)
    start_worker()
    wait_for(job, saved)
    with home_database.transaction() as session:
        request_cancel(session, job)
    row = wait_for(job, ended, seconds=10)
    assert row.status == Status.REVOKED
    assert row.progress is not None
    cancelled_at = row.progress["step"]
    assert cancelled_at > 1
    assert not children(job)
    with home_database.transaction() as session:
        request_resume(session, job)
    publish(job)
    row = wait_for(job, at_work)
    assert row.attempt == 2
    assert row.progress is not None
    assert row.progress["step"] >= cancelled_at, "it went on where it was"


@pytest.mark.slow
def test_a_killed_child_is_replaced_and_goes_on(
    submit: Callable[..., str], start_worker: StartWorker, wait_for: WaitFor
) -> None:
    job = submit(**LONG)
    worker = start_worker()
    wait_for(job, saved)
    (child,) = children(job)
    child.kill()
    row = wait_for(job, lambda row: row.attempt == 2 and at_work(row))
    assert row.status == Status.PROGRESS
    (child,) = children(job)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    gone, alive = psutil.wait_procs([child], timeout=30)
    assert gone and not alive, "a child dies with its worker"


@pytest.mark.slow
def test_a_worker_that_shuts_down_gives_its_job_back(
    submit: Callable[..., str], start_worker: StartWorker, wait_for: WaitFor
) -> None:
    job = submit(**LONG)
    worker = start_worker()
    wait_for(job, saved)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    row = wait_for(job, lambda row: row.status == Status.PENDING, seconds=1)
    assert (row.resume, row.setbacks, row.worker) == (True, 0, None)
    assert not children(job)
    start_worker()
    wait_for(job, lambda row: row.attempt == 2 and at_work(row))


@pytest.mark.slow
def test_a_job_that_cannot_be_done_fails_at_once(
    submit: Callable[..., str], start_worker: StartWorker, wait_for: WaitFor
) -> None:
    job = submit(**{"data.dataset_name": "/nowhere/rows.csv"})
    start_worker()
    row = wait_for(job, ended)
    assert (row.status, row.attempt, row.error_code) == (Status.FAILURE, 1, "dataset_not_found")
