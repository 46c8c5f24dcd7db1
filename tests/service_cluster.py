"""The service as real processes that are replaced when they die, on a small model and its data, for fault tests."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from loramill.database import Database
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import FINISHED, Experiment
from loramill.experiments.store import ExperimentStore
from loramill.settings import Settings
from loramill.tasks.broker import EmbeddedBroker
from loramill.tasks.worker import present_workers
from small_models import save_small_model
from small_runs import write_rows

ADMIN, PASSWORD = "root", "correct horse battery"
BLOWS = {"worker": 4, "child": 4, "api": 2, "queue": 1}
"""What is killed, and how often against the others. The reaper is a part of every worker, and dies with it."""


class Cluster:
    """Two workers, an API if there is to be one, the queue's server, and blows against them."""

    def __init__(self, broker: EmbeddedBroker, api_port: int, workers: int = 2) -> None:
        self.broker = broker
        self.api_url = f"http://127.0.0.1:{api_port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.api: subprocess.Popen[bytes] | None = None
        self.kills: Counter[str] = Counter()
        self._wanted = workers

    def keep_up(self, *, api: bool = False) -> None:
        """Start again what has died; the workers themselves look after the queue's server."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < self._wanted:
            self.workers.append(start("worker"))
        if api and (self.api is None or self.api.poll() is not None):
            self.api = start("api")

    def wait_for_workers(self, seconds: float = 120.0) -> None:
        """Start workers, and wait until all of them take jobs."""
        self.keep_up()
        until = time.monotonic() + seconds
        while len(present_workers(self.broker)) < self._wanted:
            assert time.monotonic() < until, "the workers do not start"
            time.sleep(0.1)

    def strike(self, dice: random.Random) -> None:
        """Kill a process of the service by SIGKILL."""
        kind = dice.choices([*BLOWS], [*BLOWS.values()])[0]
        victims = self._pids(kind)
        if victims:
            self.kill(dice.choice(victims), kind)

    def kill(self, pid: int, kind: str) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has just ended by itself
            return
        self.kills[kind] += 1

    def children(self) -> list[psutil.Process]:
        """Processes that train, and those that wait for work."""
        return [child for worker in self.workers for child in _children(worker.pid)]

    def end(self) -> None:
        ours = [*self.workers, *([self.api] if self.api else [])]
        for process in ours:
            process.terminate()
        for process in ours:
            process.wait(30)

    def _pids(self, kind: str) -> list[int]:
        match kind:
            case "worker":
                return [worker.pid for worker in self.workers]
            case "child":
                return [child.pid for child in self.children()]
            case "api":
                return [self.api.pid] if self.api else []
            case _:
                server = self.broker.server_pid()
                return [server] if server else []


def start(command: str) -> subprocess.Popen[bytes]:
    loramill = [sys.executable, "-c", "from loramill.cli.main import main; main()"]
    return subprocess.Popen([*loramill, command], start_new_session=True)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def prepare_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """``LORAMILL_HOME`` with ``model`` and ``rows`` and a free port for the API; no other setting is seen."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    monkeypatch.setenv("LORAMILL_HOME", str(home))
    monkeypatch.setenv("API_PORT", str(port))
    monkeypatch.setenv("LORAMILL_ADMIN_USER", ADMIN)
    monkeypatch.setenv("LORAMILL_ADMIN_PASSWORD", PASSWORD)
    save_small_model("bert", home / "model")
    write_rows(home / "rows")
    return Settings.load()


def read(database: Database, jobs: Sequence[str]) -> list[Experiment]:
    with database.reading() as session:
        store = ExperimentStore(session)
        return [store.get(job) for job in jobs]


def wait_until_all_ended(database: Database, jobs: Sequence[str], seconds: float) -> list[Experiment]:
    """Fails when nothing has changed for so many seconds: how long all take together is up to the machine."""
    before: list[tuple[str, str, int, str | None]] = []
    while True:
        rows = read(database, jobs)
        if all(row.status in FINISHED for row in rows):
            return rows
        if (now := describe(rows)) != before:
            before, until = now, time.monotonic() + seconds
        assert time.monotonic() < until, now
        time.sleep(0.2)


def describe(rows: Sequence[Experiment]) -> list[tuple[str, str, int, str | None]]:
    return [(row.id, row.status, row.attempt, row.error_message) for row in rows]


def check_went_on_from_last_checkpoint(folder: ExperimentFolder) -> int:
    """Each attempt began at the newest checkpoint of those before it. Returns how many began at one."""
    saved, resumed = 0, 0
    for event in folder.read_events():
        message = event.get("message", "")
        if event["type"] == "checkpoint":
            saved = max(saved, event["step"])
        elif message.startswith("Resumed from checkpoint-"):
            step = int(message.removeprefix("Resumed from checkpoint-").removesuffix("."))
            assert step >= saved, f"{folder.id} went back to step {step} from {saved}"
            resumed += 1
        elif message.startswith("No checkpoint to resume from"):
            assert saved == 0, f"{folder.id} began anew although it had saved step {saved}"
    return resumed


def insist(call: Callable[[], object], passing: Callable[[Exception], bool]) -> object:
    """The result of a call, made again while it fails in a way that passes."""
    while True:
        try:
            return call()
        except Exception as error:
            if not passing(error):
                raise
        time.sleep(0.5)
