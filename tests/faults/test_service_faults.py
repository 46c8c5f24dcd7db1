"""Anything of the service is killed while real jobs train: none is lost, and none ends twice.

Each test has a short form, which is one of the default tests, and a whole one for ``make test-faults``.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import redis
from sqlalchemy import func, select

import service_cluster
from loramill.api_session import ApiError
from loramill.client import Client, Task
from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import UnavailableError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Experiment, Status
from loramill.jobs.control import request_cancel
from loramill.jobs.submit import submit_training
from loramill.settings import Settings
from loramill.tasks.broker import EmbeddedBroker
from loramill.tasks.celery_app import Publisher, create_celery
from service_cluster import Cluster, check_went_on_from_last_checkpoint, describe, read, wait_until_all_ended
from small_runs import small_config

RecordProperty = Callable[[str, Any], None]

EPOCHS, STEPS_OF_AN_EPOCH, SAVE_STEPS = 120, 6, 40
CANCEL_SECONDS, BESIDE_OTHER_TESTS = 10.0, 20.0
COME_BACK_SECONDS = 12.0
"""The reaper sends a waiting job again after ten."""

BLOWS_AHEAD = 2
"""Blows fall as fast as checkpoints are saved: on a busy machine, nothing would be left to go on from otherwise."""

WHOLE_KILLS = pytest.param(50, 200, id="whole", marks=[pytest.mark.faults, pytest.mark.timeout(20 * 60)])
WHOLE_RESTARTS = pytest.param(8, 20, id="whole", marks=[pytest.mark.faults, pytest.mark.timeout(10 * 60)])
WHOLE_CANCELS = pytest.param(100, CANCEL_SECONDS, id="whole", marks=[pytest.mark.faults, pytest.mark.timeout(15 * 60)])


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return service_cluster.prepare_home(tmp_path, monkeypatch)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.effective_database_url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def cluster(settings: Settings) -> Iterator[Cluster]:
    broker = EmbeddedBroker(settings.secrets_folder / "queue")
    with broker.in_use():
        cluster = Cluster(broker, settings.api_port)
        yield cluster
        cluster.end()


ENOUGH_KILLS = 20
"""So many blows surely hit a job that has a checkpoint; a few may all fall before the first."""


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "kills"), [pytest.param(3, 6, id="short"), WHOLE_KILLS])
def test_every_job_ends_once_whatever_is_killed(
    jobs: int,
    kills: int,
    settings: Settings,
    database: Database,
    cluster: Cluster,
    record_testsuite_property: RecordProperty,
) -> None:
    accepted: list[str] = []
    submitting = threading.Thread(target=submit_all, args=(settings, cluster, accepted, jobs, kills), daemon=True)
    submitting.start()
    dice = random.Random(11)
    while submitting.is_alive() or cluster.kills.total() < kills:
        cluster.keep_up(api=True)
        time.sleep(dice.uniform(0.5, 4.0))
        rows = read(database, [*accepted])
        assert Status.FAILURE not in {row.status for row in rows}, describe(rows)
        if rows and cluster.kills.total() < min(kills, count_checkpoints(settings, accepted) + BLOWS_AHEAD):
            cluster.strike(dice)
    cluster.keep_up(api=True)
    rows = wait_until_all_ended(database, accepted, seconds=180)
    folders = [ExperimentFolder.open(settings.results_folder, job) for job in accepted]
    resumed = sum(check_went_on_from_last_checkpoint(folder) for folder in folders)
    record_testsuite_property("killed", dict(cluster.kills))
    record_testsuite_property("attempts", sum(row.attempt for row in rows))
    record_testsuite_property("resumed from a checkpoint", resumed)
    assert len(set(accepted)) == jobs == count(database), "each acknowledged once, and no other was recorded"
    assert {row.status for row in rows} == {Status.SUCCESS}, describe(rows)
    for folder in folders:
        check_ended_once(folder)
    assert resumed > 0 or kills < ENOUGH_KILLS, "nobody had to go on, so this showed nothing"


def submit_all(settings: Settings, cluster: Cluster, accepted: list[str], jobs: int, kills: int) -> None:
    """Submit through the API, one more job for every few blows; a call that got no answer is repeated."""
    config = short_run(settings).model_dump(mode="json")
    publish = Publisher(create_celery(cluster.broker)).publish
    with Client(cluster.api_url, timeout=10) as client:
        service_cluster.insist(lambda: client.sign_in(service_cluster.ADMIN, service_cluster.PASSWORD), is_outage)
        for number in range(jobs):
            while cluster.kills.total() < number * kills // jobs - 2:
                time.sleep(0.1)
            key = f"job-{number}"
            task = service_cluster.insist(lambda key=key: client.train(config, idempotency_key=key), is_outage)
            accepted.append(cast("Task", task).experiment_id)
            for _ in range(2):  # every message comes three times
                publish(accepted[-1])


def count_checkpoints(settings: Settings, jobs: list[str]) -> int:
    folders = [ExperimentFolder(settings.results_folder / job) for job in jobs]
    return sum(event["type"] == "checkpoint" for folder in folders for event in folder.read_events())


def is_outage(error: Exception) -> bool:
    return isinstance(error, UnavailableError) or (isinstance(error, ApiError) and error.status >= 500)


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "restarts"), [pytest.param(3, 3, id="short"), WHOLE_RESTARTS])
def test_a_queue_that_dies_and_forgets_loses_no_job_and_repeats_none(
    jobs: int, restarts: int, settings: Settings, database: Database, cluster: Cluster
) -> None:
    publish = Publisher(create_celery(cluster.broker)).publish

    def publish_three_times(job: str) -> None:
        for _ in range(3):
            publish(job)

    config = short_run(settings)
    cluster.wait_for_workers()
    dice = random.Random(12)
    accepted: list[str] = []
    for restart in range(restarts):
        while len(accepted) < jobs * (restart + 1) // restarts:
            accepted.append(
                submit_training(config, settings=settings, database=database, enqueue=publish_three_times).id
            )
        time.sleep(dice.uniform(0.5, 4.0))
        if restart == restarts // 2:
            service_cluster.insist(cluster.broker.client.flushall, lambda error: isinstance(error, redis.RedisError))
        cluster.kill(server_of(cluster.broker), "queue")
    rows = wait_until_all_ended(database, accepted, seconds=240)
    assert cluster.kills["queue"] == restarts
    assert [(row.status, row.attempt) for row in rows] == [(Status.SUCCESS, 1)] * jobs, describe(rows)
    assert all(worker.poll() is None for worker in cluster.workers), "a worker outlives its queue"
    for job in accepted:
        check_ended_once(ExperimentFolder.open(settings.results_folder, job))


def server_of(broker: EmbeddedBroker, seconds: float = 60.0) -> int:
    """Process of the queue's server, which a worker has started again by then."""
    until = time.monotonic() + seconds
    while (pid := broker.server_pid()) is None or not psutil.pid_exists(pid):
        assert time.monotonic() < until, "nobody started the queue's server again"
        time.sleep(0.05)
    return pid


@pytest.mark.slow
@pytest.mark.parametrize(("cancels", "limit"), [pytest.param(6, BESIDE_OTHER_TESTS, id="short"), WHOLE_CANCELS])
def test_a_cancel_at_any_moment_ends_a_job_for_good(
    cancels: int,
    limit: float,
    settings: Settings,
    database: Database,
    cluster: Cluster,
    record_testsuite_property: RecordProperty,
) -> None:
    publish = Publisher(create_celery(cluster.broker)).publish
    cluster.wait_for_workers()
    config = short_run(settings, epochs=10_000)

    def cancel_one(number: int) -> tuple[str, float]:
        job = submit_training(config, settings=settings, database=database, enqueue=publish).id
        time.sleep(random.Random(number).uniform(0.0, 8.0))
        asked = time.monotonic()
        with database.transaction() as session:
            request_cancel(session, job)
        wait_until_all_ended(database, [job], seconds=60)
        return job, time.monotonic() - asked

    with ThreadPoolExecutor(2 * len(cluster.workers)) as pool:  # more than can work: some are cancelled waiting
        ended = [*pool.map(cancel_one, range(cancels))]
    jobs = [job for job, _ in ended]
    before = read(database, jobs)
    record_testsuite_property("cancelled at work", sum(row.attempt for row in before))
    record_testsuite_property("slowest end, s", max(seconds for _, seconds in ended))
    assert {row.status for row in before} == {Status.REVOKED}, describe(before)
    assert sum(row.attempt for row in before) > 0, "none was at work, so this showed nothing"
    assert max(seconds for _, seconds in ended) <= limit
    time.sleep(COME_BACK_SECONDS)
    assert describe(read(database, jobs)) == describe(before), "one came back"
    assert not orphans(settings, cluster)


def orphans(settings: Settings, cluster: Cluster) -> list[str]:
    """Children that are no worker's, and those that hold files of a job."""
    known = {child.pid for child in cluster.children()}
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if "loramill.jobs.child" not in (process.info["cmdline"] or ()):
                continue
            if process.environ().get("LORAMILL_HOME") != str(settings.home.absolute()):
                continue
            files = [file.path for file in process.open_files() if str(settings.results_folder) in file.path]
            if process.pid not in known or files:
                found.append(f"{process.pid} {files}")
        except psutil.NoSuchProcess:
            continue
    return found


def short_run(settings: Settings, epochs: int = EPOCHS) -> ExperimentConfig:
    changes = {"training.num_train_epochs": epochs, "training.save_steps": SAVE_STEPS}
    return small_config(settings.home / "model", settings.home / "rows", **changes)


def count(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(Experiment)) or 0


def check_ended_once(folder: ExperimentFolder) -> None:
    events = folder.read_events()
    successes = [event for event in events if event["type"] == "status" and event["status"] == "SUCCESS"]
    assert len(successes) == 1
    assert max(event["step"] for event in events if event["type"] == "checkpoint") == EPOCHS * STEPS_OF_AN_EPOCH
    assert folder.final_model.is_dir()
