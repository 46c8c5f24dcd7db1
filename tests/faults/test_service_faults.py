"""Workers, their children and the queue's server are killed while real jobs train: none is lost, none ends twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from loramill.database import Database
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import FINISHED, Experiment, Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.submit import submit_training
from loramill.settings import Settings
from loramill.tasks.broker import EmbeddedBroker
from loramill.tasks.celery_app import Publisher, create_celery
from small_models import save_small_model
from small_runs import small_config, write_rows

JOBS = int(os.environ.get("LORAMILL_FAULT_JOBS", "3"))
KILLS = int(os.environ.get("LORAMILL_FAULT_KILLS", "9"))
SECONDS = 20 * 60
WORKERS = 2


class Cluster:
    """Workers on one home that are replaced when they die, and blows against them."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker
        self.workers: list[subprocess.Popen[bytes]] = []
        self.blows: list[str] = []

    def keep_up(self) -> None:
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < WORKERS:
            command = [sys.executable, "-c", "from loramill.cli.main import main; main()", "worker"]
            self.workers.append(subprocess.Popen(command, start_new_session=True))

    def strike(self, dice: random.Random) -> None:
        kind = dice.choices(["worker", "child", "server", "forget"], [4, 4, 1, 1])[0]
        if kind == "child":
            self._kill_child(dice)
        elif kind == "worker":
            self._kill(dice.choice(self.workers).pid, kind)
        elif kind == "server":
            pid = self.broker.server_pid()
            if pid is not None:
                self._kill(pid, kind)
        else:
            self.broker.client.flushall()
            self.blows.append(kind)

    def _kill_child(self, dice: random.Random) -> None:
        children = [child for worker in self.workers for child in _children(worker.pid)]
        if children:
            self._kill(dice.choice(children).pid, "child")

    def _kill(self, pid: int, kind: str) -> None:
        os.kill(pid, signal.SIGKILL)
        self.blows.append(kind)

    def end(self) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(30)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    monkeypatch.setenv("LORAMILL_HOME", str(tmp_path))
    save_small_model("bert", tmp_path / "model")
    write_rows(tmp_path / "rows")
    return Settings.load()


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
        cluster = Cluster(broker)
        yield cluster
        cluster.end()


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_every_job_ends_once_whatever_is_killed(settings: Settings, database: Database, cluster: Cluster) -> None:
    publish = Publisher(create_celery(cluster.broker)).publish
    jobs = [submit(settings, database, publish) for _ in range(JOBS)]
    dice = random.Random(11)
    until = time.monotonic() + SECONDS
    while True:
        cluster.keep_up()
        time.sleep(dice.uniform(1.0, 6.0))
        rows = read(database, jobs)
        if all(row.status in FINISHED for row in rows):
            break
        assert time.monotonic() < until, [(row.status, row.attempt) for row in rows]
        if len(cluster.blows) < KILLS and any(row.status == Status.PROGRESS for row in rows):
            cluster.strike(dice)
    assert len(cluster.blows) >= min(KILLS, JOBS), "some blows fell, otherwise this showed nothing"
    assert [(row.status, row.error_message) for row in rows] == [(Status.SUCCESS, None)] * JOBS
    assert sum(row.attempt for row in rows) > JOBS
    for job in jobs:
        check_ended_once(ExperimentFolder.open(settings.results_folder, job))


def submit(settings: Settings, database: Database, publish: Callable[[str], None]) -> str:
    changes = {"training.num_train_epochs": 300, "training.save_steps": 50}
    config = small_config(settings.home / "model", settings.home / "rows", **changes)
    folder = submit_training(config, settings=settings, database=database, enqueue=publish)
    for _ in range(2):
        publish(folder.id)
    return folder.id


def read(database: Database, jobs: list[str]) -> list[Experiment]:
    with database.reading() as session:
        store = ExperimentStore(session)
        return [store.get(job) for job in jobs]


def check_ended_once(folder: ExperimentFolder) -> None:
    events = folder.read_events()
    successes = [event for event in events if event["type"] == "status" and event["status"] == "SUCCESS"]
    assert len(successes) == 1
    last_steps = [event["step"] for event in events if event["type"] == "checkpoint"]
    assert max(last_steps) == 300 * 96 // 16
    assert folder.final_model.is_dir()
