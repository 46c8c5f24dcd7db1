"""From accepting a job to a worker at work on it: loramill's durable row beside a plain Celery task on one server.

    python benchmarks/service/submit_to_started.py [--rounds 20]

All publish to the embedded queue. Plain: ``send_task`` until the task's first line, at a Celery worker as it comes
(``prefork``), and at one with the pool of loramill's workers (``threads``). loramill: ``submit_for_user`` (folder, row,
quota, audit, commit, message) until the child process has its work, which is after the worker's claim was committed.
Rounds go there and back (A B C C B A), one job at a time, with a worker of each side waiting. Prints medians and
their ratios as JSON.
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
from collections.abc import Callable, Iterator
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

POOLS = ("prefork", "threads")
PLAIN = """
import sys, time, redis
from celery import Celery
pool = sys.argv[3]
app = Celery("plain", broker=sys.argv[1])
app.conf.task_default_queue = pool
app.conf.worker_redirect_stdouts = False
answers = redis.Redis.from_url(sys.argv[2])
@app.task(name="plain")
def plain():
    answers.lpush(f"{pool}-started", time.time())
plain()
app.Worker(pool=pool, concurrency=1, without_gossip=True, without_mingle=True, without_heartbeat=True).start()
"""

CHILD = """
import json, sys, time, redis
from loramill.database import Database
from loramill.experiments.store import ExperimentStore
from loramill.settings import Settings
answers = redis.Redis.from_url(sys.argv[1])
database = Database(Settings.load().effective_database_url)
answers.lpush("durable-waits", time.time())
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


def plain_seconds(celery: Celery, broker: EmbeddedBroker, pool: str) -> float:
    before = time.time()
    celery.send_task("plain", queue=pool)
    return started_at(broker, f"{pool}-started") - before


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
        started = started_at(self.broker, "durable-started")
        self.wait()
        return started - before

    def wait(self) -> None:
        """Until the worker's next child is ready."""
        started_at(self.broker, "durable-waits")


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
            plain = Celery("plain", broker=broker.celery_url, set_as_current=False)
            socket = broker.limits_url.replace("redis+unix", "unix")
            workers = [process(PLAIN, broker.celery_url, socket, pool) for pool in POOLS]
            with workers[0], workers[1], process(WORKER, socket, CHILD):
                for pool in POOLS:
                    started_at(broker, f"{pool}-started")  # its first line: it has imported what it needs
                durable.wait()
                time.sleep(5)
                print(json.dumps(measure(plain, broker, durable, rounds), indent=2))
            durable.database.close()


def measure(plain: Celery, broker: EmbeddedBroker, durable: Durable, rounds: int) -> dict[str, float]:
    sides: dict[str, Callable[[], float]] = {
        "prefork": lambda: plain_seconds(plain, broker, "prefork"),
        "threads": lambda: plain_seconds(plain, broker, "threads"),
        "durable": durable.seconds,
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in (*sides, *reversed(sides)):
            seconds[side].append(sides[side]())
            time.sleep(0.5)  # all workers wait again
    p50 = {side: statistics.median(measured) for side, measured in seconds.items()}
    milliseconds = {f"{side}_p50_ms": 1e3 * median for side, median in p50.items()}
    return milliseconds | {f"durable_over_{pool}": p50["durable"] / p50[pool] for pool in POOLS}


if __name__ == "__main__":
    main()
