"""A worker: it takes jobs from the queue, a child process for each, and looks after jobs that nobody does."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator

import redis
from celery import Celery
from celery.signals import worker_ready, worker_shutting_down
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from loramill.database import Database
from loramill.errors import LoramillError
from loramill.experiments.models import Experiment, Status
from loramill.experiments.record_file import save_records
from loramill.jobs.gpus import GpuSlots, find_gpus
from loramill.jobs.reaper import Reaper
from loramill.jobs.supervise import Supervisor
from loramill.monitor.worker_metrics import WorkerMetrics
from loramill.settings import Settings
from loramill.tasks.broker import Broker, open_broker
from loramill.tasks.celery_app import QUEUE, Publisher, create_celery
from loramill.tasks.training import register_training

TICK_SECONDS = 1.0
PRESENT = "loramill:worker:"
PRESENT_SECONDS = 9

log = logging.getLogger(__name__)


def run_worker(settings: Settings, *, slots: int) -> None:
    """Work until SIGTERM or Ctrl-C; then save checkpoints, give the jobs back, and end.

    Args:
        slots: jobs at the same time.
    """
    database = Database(settings.effective_database_url, relaxed=True)
    database.upgrade()
    draining = threading.Event()
    with open_broker(settings) as broker, contextlib.closing(database):
        celery = create_celery(broker)
        name = f"{socket.gethostname()}:{os.getpid()}"
        metrics = WorkerMetrics(lambda: tokens_per_second(database, name))
        supervisor = Supervisor(
            settings,
            database,
            worker=name,
            draining=draining.is_set,
            ready=slots,
            gpus=GpuSlots(find_gpus()),
            on_ended=metrics.attempt_ended,
        )
        register_training(celery, supervisor)

        def drain(**_signal: object) -> None:
            draining.set()

        ready = threading.Event()

        def take(**_signal: object) -> None:
            ready.set()

        worker_shutting_down.connect(drain)
        worker_ready.connect(take)
        with (
            metrics.served(settings.worker_metrics_port, settings.worker_metrics_address),
            announced(broker, name, ready),
            supervisor.ready_children(),
            reaping(settings, database, broker, Publisher(celery)),
        ):
            log.info("Worker %s takes %d job%s at a time", name, slots, "" if slots == 1 else "s")
            _consume(celery, name, slots)


def _consume(celery: Celery, name: str, slots: int) -> None:
    """Take messages until a signal ends it; who knows of whom is in the database, so that workers need no gossip."""
    worker = celery.Worker(
        hostname=f"loramill@{name}",
        pool="threads",
        concurrency=slots,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel="INFO",
    )
    worker.start()


def tokens_per_second(database: Database, worker: str) -> float:
    """Speed of all jobs of a worker together, as their rows told it last; 0 when the database does not answer."""
    at_work = select(Experiment.progress).where(Experiment.status == Status.PROGRESS, Experiment.worker == worker)
    try:
        with database.reading() as session:
            return sum(float((progress or {}).get("tokens_per_second", 0)) for progress in session.scalars(at_work))
    except SQLAlchemyError:
        return 0.0


@contextlib.contextmanager
def announced(broker: Broker, name: str, ready: threading.Event) -> Iterator[None]:
    """The worker's name is in the queue's server for as long as it takes jobs, and a few seconds longer."""
    ended = threading.Event()

    def announce() -> None:
        ready.wait()
        while not ended.is_set():
            with contextlib.suppress(redis.RedisError):
                broker.client.set(f"{PRESENT}{name}", "", ex=PRESENT_SECONDS)
            ended.wait(PRESENT_SECONDS / 3)

    thread = threading.Thread(target=announce, name="announce", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        ready.set()
        thread.join(timeout=PRESENT_SECONDS)
        with contextlib.suppress(redis.RedisError):
            broker.client.delete(f"{PRESENT}{name}")


def present_workers(broker: Broker) -> list[str]:
    """Names of the workers that take jobs; empty when the queue does not answer."""
    try:
        return [key.decode().removeprefix(PRESENT) for key in broker.client.scan_iter(f"{PRESENT}*")]
    except redis.RedisError:
        return []


@contextlib.contextmanager
def reaping(settings: Settings, database: Database, broker: Broker, publisher: Publisher) -> Iterator[None]:
    """A thread that looks after the queue's server and the jobs that nobody does, once a second."""
    reaper = Reaper(
        database,
        publish=publisher.publish,
        queue_is_empty=lambda: queue_length(broker) == 0,
        on_ended=lambda job_id: save_records(database, settings.results_folder, job_id),
    )
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(TICK_SECONDS):
            try:
                broker.ensure_running()
                reaped = reaper.tick()
            except (LoramillError, SQLAlchemyError, redis.RedisError) as error:
                log.warning("The reaper could not look: %s", error)
                continue
            if any((reaped.requeued, reaped.revoked, reaped.failed)):
                log.warning("Lost leases: %s", reaped)

    thread = threading.Thread(target=look, name="reaper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10 * TICK_SECONDS)


def queue_length(broker: Broker) -> int:
    """Messages that wait. Raises ``redis.RedisError`` when the server does not answer."""
    return int(broker.client.llen(QUEUE))
