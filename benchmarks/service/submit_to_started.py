"""From accepting a job to a worker at work on it: loramill's durable row against a bare Celery task on the same server.

    python benchmarks/service/submit_to_started.py [--rounds 20]

Both sides publish to the embedded queue and are taken by a Celery worker with the same pool. Bare: ``send_task`` until
the task's first line. loramill: ``submit_for_user`` (folder, row, quota, audit, commit, message) until the child
process has its work, which is after the worker's claim was committed. Rounds alternate A B B A, one job at a time, with
a worker of each side waiting. Prints medians and their ratio as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from celery import Celery

from loramill.auth.audit_log import Actor, AuditLog
from loramill.auth.users import UserStore
from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.jobs.submit import Submission, submit_for_user
from loramill.settings import Settings
from loramill.tasks.broker import EmbeddedBroker
from loramill.tasks.celery_app import Publisher, create_celery

BARE = """
import sys, time, redis
from celery import Celery
app = Celery("bare", broker=sys.argv[1])
app.conf.task_default_queue = "bare"
app.conf.worker_redirect_stdouts = False
answers = redis.Redis.from_url(sys.argv[2])
@app.task(name="bare")
def bare():
    answers.lpush("bare-started", time.time())
app.Worker(pool="threads", concurrency=1, without_gossip=True, without_mingle=True, without_heartbeat=True).start()
"""

CHILD = """
import json, sys, time, redis
from loramill.database import Database
from loramill.experiments.store import ExperimentStore
from loramill.settings import Settings
answers = redis.Redis.from_url(sys.argv[1])
answers.ping()
database = Database(Settings.load().effective_database_url)
work = json.loads(sys.stdin.readline())
answers.lpush("durable-started", time.time())
with database.transaction() as session:
    ExperimentStore(session).mark_finished(work["job"], {}, attempt=work["attempt"])
"""

WORKER = """
import sys
from loramill.jobs.supervise import Supervisor
from loramill.settings import Settings
from loramill.tasks import worker
child = (sys.executable, "-c", sys.argv[2], sys.argv[1])
worker.Supervisor = lambda *a, **k: Supervisor(*a, **k, command=child)
worker.run_worker(Settings.load(), slots=1)
"""
"""The worker as it is, but for a child that succeeds at once: what it trains is not measured here."""


@contextmanager
def process(*arguments: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", *arguments], stderr=subprocess.DEVNULL) as started:
        try:
            yield
        finally:
            started.terminate()
            started.wait(30)


def bare_seconds(celery: Celery, broker: EmbeddedBroker) -> float:
    before = time.time()
    celery.send_task("bare")
    return started_at(broker, "bare-started") - before


def started_at(broker: EmbeddedBroker, answers: str) -> float:
    """When the next of them began, as it says itself."""
    with redis.Redis(unix_socket_path=str(broker.socket)) as patient:
        answer = patient.brpop([answers], timeout=30)
    if answer is None:
        raise SystemExit(f"Nothing came to {answers} for 30 s.")
    return float(answer[1])


class Durable:
    """Submits of one user, as the API does them."""

    def __init__(self, settings: Settings, broker: EmbeddedBroker) -> None:
        self.settings, self.broker = settings, broker
        self.database = Database(settings.effective_database_url)
        self.database.upgrade()
        self.audit = AuditLog.from_settings(settings, self.database)
        self.publisher = Publisher(create_celery(broker))
        with self.database.transaction() as session:
            user = UserStore(session).create("bench", password_hash="none")
            user.max_concurrent_jobs = user.max_daily_submits = 10**6
        self.actor = Actor(user.id, user.role, "local")

    def seconds(self) -> float:
        submission = Submission(ExperimentConfig(), self.actor)
        before = time.time()
        submit_for_user(
            submission,
            settings=self.settings,
            database=self.database,
            audit=self.audit,
            enqueue=self.publisher.publish,
        )
        return started_at(self.broker, "durable-started") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as home:
        os.environ["LORAMILL_HOME"] = home
        settings = Settings.load()
        broker = EmbeddedBroker(Path(home) / ".loramill" / "queue")
        with broker.in_use():
            durable = Durable(settings, broker)
            bare = Celery("bare", broker=broker.celery_url, set_as_current=False)
            bare.conf.task_default_queue = "bare"
            socket = broker.limits_url.replace("redis+unix", "unix")
            with process(BARE, broker.celery_url, socket), process(WORKER, socket, CHILD):
                time.sleep(15)
                print(json.dumps(measure(bare, broker, durable, rounds), indent=2))
            durable.database.close()


def measure(bare: Celery, broker: EmbeddedBroker, durable: Durable, rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {"bare": [], "durable": []}
    for _ in range(rounds):
        for side in ("bare", "durable", "durable", "bare"):
            seconds[side].append(bare_seconds(bare, broker) if side == "bare" else durable.seconds())
            time.sleep(1.0)  # the durable worker's next child is ready by then, and both workers wait again
    bare_p50, durable_p50 = (statistics.median(seconds[side]) for side in ("bare", "durable"))
    return {"bare_p50_ms": 1e3 * bare_p50, "durable_p50_ms": 1e3 * durable_p50, "ratio": durable_p50 / bare_p50}


if __name__ == "__main__":
    main()
