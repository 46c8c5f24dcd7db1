"""The clock on the wall of a worker jumps by an hour, forward and back, while it trains: no lease is stolen."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import service_cluster
from loramill.database import Database
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Status
from loramill.jobs.control import request_cancel
from loramill.jobs.submit import submit_training
from loramill.settings import Settings
from loramill.tasks.broker import EmbeddedBroker
from loramill.tasks.celery_app import Publisher, create_celery
from service_cluster import Cluster, describe, read, wait_until_all_ended
from small_runs import small_config

HOUR = 3600
JUMPS = (HOUR, -HOUR, 25 * HOUR, 0, -25 * HOUR, HOUR)
JUMP_SECONDS = 4.0

CLOCK_IN_C = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *jump;  /* seconds, in a file that the test writes */

__attribute__((constructor)) static void open_jump(void) {
    int file = open(getenv("CLOCK_JUMP"), O_RDONLY);
    jump = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += *jump;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    if (where) *where = fine.tv_sec;
    return fine.tv_sec;
}
"""

pytestmark = [pytest.mark.faults, pytest.mark.slow]


class WallClock:
    """Of the processes that are started while it is preloaded."""

    def __init__(self, folder: Path) -> None:
        (folder / "clock.c").write_text(CLOCK_IN_C)
        self.library = folder / "clock.so"
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self.library), str(folder / "clock.c")]
        subprocess.run(command, check=True)
        self.file = folder / "jump"
        self.file.write_bytes(bytes(8))

    def jump(self, seconds: int) -> None:
        """How far it is ahead from now on."""
        with self.file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as memory:
            memory[:] = struct.pack("q", seconds)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return service_cluster.prepare_home(tmp_path, monkeypatch)


@pytest.fixture
def clock(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """Seen by what is started after it."""
    if shutil.which("cc") is None:
        pytest.skip("a C compiler makes the clock that jumps")
    clock = WallClock(tmp_path)
    monkeypatch.setenv("LD_PRELOAD", str(clock.library))
    monkeypatch.setenv("CLOCK_JUMP", str(clock.file))
    return clock


@pytest.fixture
def cluster(settings: Settings, clock: WallClock) -> Iterator[Cluster]:
    """Workers with a clock that jumps; the queue's server has the machine's."""
    broker = EmbeddedBroker(settings.secrets_folder / "queue")
    with broker.in_use():
        cluster = Cluster(broker, settings.api_port)
        yield cluster
        cluster.end()


def test_clock_jumps_of_an_hour_steal_no_lease(settings: Settings, cluster: Cluster, clock: WallClock) -> None:
    database = Database(settings.effective_database_url)
    database.upgrade()
    publish = Publisher(create_celery(cluster.broker)).publish
    cluster.wait_for_workers()
    changes = {"training.num_train_epochs": 10_000, "training.save_steps": 500}
    config = small_config(settings.home / "model", settings.home / "rows", **changes)
    jobs = [submit_training(config, settings=settings, database=database, enqueue=publish).id for _ in range(2)]
    while not all(row.status == Status.PROGRESS for row in read(database, jobs)):
        time.sleep(0.2)
    for seconds in JUMPS:
        clock.jump(seconds)
        time.sleep(JUMP_SECONDS)
        rows = read(database, jobs)
        assert [row.attempt for row in rows] == [1, 1], describe(rows)
    hours = {event["time"] // HOUR for event in ExperimentFolder.open(settings.results_folder, jobs[0]).read_events()}
    assert max(hours) - min(hours) >= 49, "the clock of the training process did jump"
    for job in jobs:
        with database.transaction() as session:
            request_cancel(session, job)
    rows = wait_until_all_ended(database, jobs, seconds=10)
    assert [(row.status, row.attempt) for row in rows] == [(Status.REVOKED, 1)] * 2, describe(rows)
    database.close()
