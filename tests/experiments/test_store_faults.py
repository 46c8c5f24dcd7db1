"""The record under many writers, and under kill -9. The full figures are had with
``LORAMILL_WRITER_TRANSACTIONS=2000 LORAMILL_KILLS=200 pytest tests/experiments/test_store_faults.py``.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from loramill.database import Database
from loramill.experiments.models import Experiment, Metric
from postgres_server import PostgresServer
from store_children import acknowledge, read, write

WRITERS = 8
TRANSACTIONS = int(os.environ.get("LORAMILL_WRITER_TRANSACTIONS", "30"))
KILLS = int(os.environ.get("LORAMILL_KILLS", "12"))

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Children that have the store imported already, and start in a moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["loramill.experiments.store", "sqlalchemy.dialects.sqlite", "psycopg"])
    return context


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of its own: children write to it from outside the test's transaction."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'results' / 'experiments.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        yield server.create(f"faults_{os.getpid()}_{time.time_ns()}")


def test_many_writers_and_readers_get_no_error(url: str, processes: ForkServerContext) -> None:
    database = Database(url)
    database.upgrade()
    stop = processes.Event()
    writers = [start(processes, write, url, number, TRANSACTIONS) for number in range(WRITERS)]
    readers = [start(processes, read, url, stop) for _ in range(2)]
    assert [errors for _, pipe in writers for errors in pipe.recv()] == []
    stop.set()
    for _, pipe in readers:
        errors, pages = pipe.recv()
        assert errors == []
        assert pages > 0
    for process, _ in writers + readers:
        process.join()
    with database.reading() as session:
        runs = session.scalar(select(func.count()).select_from(Experiment).where(Experiment.status == "SUCCESS"))
        metrics = session.scalar(select(func.count()).select_from(Metric))
    assert (runs, metrics) == (WRITERS * (TRANSACTIONS // 2), 3 * WRITERS * (TRANSACTIONS // 2))
    database.close()


def test_a_kill_loses_nothing_that_was_acknowledged(url: str, processes: ForkServerContext) -> None:
    database = Database(url)
    database.upgrade()
    draw = random.Random(11)
    promised: set[str] = set()
    for kill in range(KILLS):
        process, pipe = start(processes, acknowledge, url, str(kill))
        promised.add(pipe.recv())
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.join()
        promised.update(drain(pipe))
        check(database, promised)
    database.close()


def check(database: Database, promised: set[str]) -> None:
    with database.reading() as session:
        finished = set(session.scalars(select(Experiment.id).where(Experiment.status == "SUCCESS")))
        assert promised <= finished
        whole = select(Metric.experiment_number).group_by(Metric.experiment_number).having(func.count() == 3)
        torn = select(Experiment.id).where(Experiment.status == "SUCCESS", Experiment.number.not_in(whole))
        assert session.scalars(torn).all() == []
        if database.engine.dialect.name == "sqlite":
            assert session.scalar(text("PRAGMA integrity_check")) == "ok"


def drain(pipe: Connection) -> list[str]:
    """What a killed child had said; its last message may be torn, and then it promised nothing."""
    said = []
    try:
        while pipe.poll():
            said.append(pipe.recv())
    except (EOFError, OSError):
        pass
    return said


def start(processes: ForkServerContext, target: object, *arguments: object) -> tuple[object, Connection]:
    mine, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, mine
