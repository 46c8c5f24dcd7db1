"""Anything of the service is killed while real jobs train: none is lost, and none ends twice."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import func, select

from loramill.client import ApiError, Client
from loramill.database import Database
from loramill.errors import UnavailableError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import FINISHED, Experiment, Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.control import request_cancel
from loramill.jobs.submit import submit_training
from loramill.settings import Settings
from loramill.tasks.broker import EmbeddedBroker
from loramill.tasks.celery_app import Publisher, create_celery
from small_models import save_small_model
from small_runs import small_config, write_rows

JOBS = int(os.environ.get("LORAMILL_FAULT_JOBS", "3"))
KILLS = int(os.environ.get("LORAMILL_FAULT_KILLS", "9"))
SECONDS = 20 * 60
CANCELS = int(os.environ.get("LORAMILL_FAULT_CANCELS", "6"))
WORKERS = 2
ADMIN, PASSWORD = "root", "correct horse battery"
LOOK_AGAIN_SECONDS = 0.5


class Cluster:
    """Workers, and an API if there is to be one, that are replaced when they die, and blows against them."""

    def __init__(self, broker: EmbeddedBroker, api_port: int) -> None:
        self.broker = broker
        self.api_url = f"http://127.0.0.1:{api_port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.api: subprocess.Popen[bytes] | None = None
        self.blows: list[str] = []

    def keep_up(self) -> None:
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < WORKERS:
            self.workers.append(start("worker"))

    def keep_api_up(self) -> None:
        if self.api is None or self.api.poll() is not None:
            self.api = start("api")

    def strike(self, dice: random.Random) -> None:
        kind = dice.choices(["worker", "child", "api", "server", "forget"], [4, 4, 2, 1, 1])[0]
        if kind == "api":
            if self.api is not None:
                self._kill(self.api.pid, kind)
        elif kind == "child":
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
        ours = [*self.workers, *([self.api] if self.api else [])]
        for process in ours:
            process.terminate()
        for process in ours:
            process.wait(30)


def start(command: str) -> subprocess.Popen[bytes]:
    loramill = [sys.executable, "-c", "from loramill.cli.main import main; main()"]
    return subprocess.Popen([*loramill, command], start_new_session=True)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {"LORAMILL_HOME": str(tmp_path), "API_PORT": str(port)}
    for name, value in {**environment, "LORAMILL_ADMIN_USER": ADMIN, "LORAMILL_ADMIN_PASSWORD": PASSWORD}.items():
        monkeypatch.setenv(name, value)
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
        cluster = Cluster(broker, settings.api_port)
        yield cluster
        cluster.end()


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_every_job_ends_once_whatever_is_killed(settings: Settings, database: Database, cluster: Cluster) -> None:
    jobs: list[str] = []
    submitting = threading.Thread(target=submit_all, args=(settings, cluster, jobs), daemon=True)
    submitting.start()
    dice = random.Random(11)
    until = time.monotonic() + SECONDS
    while True:
        cluster.keep_up()
        cluster.keep_api_up()
        time.sleep(dice.uniform(1.0, 6.0))
        rows = read(database, [*jobs])
        if not submitting.is_alive() and all(row.status in FINISHED for row in rows):
            break
        assert time.monotonic() < until, [(row.status, row.attempt) for row in rows]
        if len(cluster.blows) < KILLS and any(row.status == Status.PROGRESS for row in rows):
            cluster.strike(dice)
    assert len(cluster.blows) >= min(KILLS, JOBS), "some blows fell, otherwise this showed nothing"
    assert len(set(jobs)) == JOBS == count(database), "each acknowledged once, and no other was recorded"
    assert [(row.status, row.error_message) for row in rows] == [(Status.SUCCESS, None)] * JOBS
    assert sum(row.attempt for row in rows) > JOBS
    for job in jobs:
        check_ended_once(ExperimentFolder.open(settings.results_folder, job))


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_a_cancel_at_any_moment_ends_a_job_for_good(settings: Settings, database: Database, cluster: Cluster) -> None:
    publish = Publisher(create_celery(cluster.broker)).publish
    cluster.keep_up()
    changes = {"training.num_train_epochs": 100_000, "training.save_steps": 50}
    config = small_config(settings.home / "model", settings.home / "rows", **changes)

    def cancel_one(number: int) -> str:
        dice = random.Random(number)
        job = submit_training(config, settings=settings, database=database, enqueue=publish).id
        time.sleep(dice.uniform(0.0, 5.0))
        asked = time.monotonic()
        with database.transaction() as session:
            request_cancel(session, job)
        while read(database, [job])[0].status not in FINISHED:
            assert time.monotonic() - asked <= 10, job
            time.sleep(0.1)
        return job

    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [*pool.map(cancel_one, range(CANCELS))]
    time.sleep(5)  # what is going to come back has come back
    assert {row.status for row in read(database, jobs)} == {Status.REVOKED}
    assert not [child for worker in cluster.workers for child in _children(worker.pid) if is_at_work(child)]


def is_at_work(child: psutil.Process) -> bool:
    """Whether a child trains; one that waits for work has nearly no processor time once it has imported torch."""
    before = sum(child.cpu_times()[:2])
    time.sleep(1.0)
    return sum(child.cpu_times()[:2]) - before > 0.3


def submit_all(settings: Settings, cluster: Cluster, jobs: list[str]) -> None:
    """Submit every job through the API until it was acknowledged: a call that got no answer is repeated."""
    changes = {"training.num_train_epochs": 300, "training.save_steps": 50}
    config = small_config(settings.home / "model", settings.home / "rows", **changes).model_dump(mode="json")
    publish = Publisher(create_celery(cluster.broker)).publish
    with Client(cluster.api_url, timeout=10) as client:
        insist(lambda: client.sign_in(ADMIN, PASSWORD))
        for number in range(JOBS):
            task = insist(lambda number=number: client.train(config, idempotency_key=f"job-{number}"))
            jobs.append(task.experiment_id)
            for _ in range(2):  # every message comes three times
                publish(task.experiment_id)


def insist(call: Callable[[], Any]) -> Any:
    while True:
        try:
            return call()
        except UnavailableError:
            time.sleep(LOOK_AGAIN_SECONDS)
        except ApiError as error:
            if error.status < 500:
                raise
            time.sleep(LOOK_AGAIN_SECONDS)


def count(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(Experiment)) or 0


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
