"""A home with a small model and data, and a real worker process on it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from loramill.database import Database
from loramill.experiments.models import Experiment
from loramill.experiments.store import ExperimentStore
from loramill.settings import Settings
from small_models import save_small_model
from small_runs import write_rows

SECONDS = 240


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``LORAMILL_HOME`` with ``model`` and ``rows``; nothing else of the machine's environment is seen."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    monkeypatch.setenv("LORAMILL_HOME", str(tmp_path))
    save_small_model("bert", tmp_path / "model")
    write_rows(tmp_path / "rows")
    return tmp_path


@pytest.fixture
def settings(home: Path) -> Settings:
    return Settings.load()


@pytest.fixture
def home_database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.effective_database_url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def start_worker(home: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts ``loramill worker``; ended by SIGTERM with the test."""
    with ExitStack() as stack:

        def start() -> subprocess.Popen[bytes]:
            command = [sys.executable, "-c", "from loramill.cli.main import main; main()", "worker"]
            worker = subprocess.Popen(command, cwd=home)
            stack.callback(end, worker)
            return worker

        yield start


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait(20)


@pytest.fixture
def wait_for(home_database: Database) -> Callable[..., Experiment]:
    """Waits until an experiment's row is as it should be; a row that never is fails with what it was."""

    def wait(experiment_id: str, right: Callable[[Experiment], bool], seconds: float = SECONDS) -> Experiment:
        until = time.monotonic() + seconds
        while True:
            with home_database.reading() as session:
                row = ExperimentStore(session).get(experiment_id)
            if right(row):
                return row
            assert time.monotonic() < until, f"{row.status} {row.error_message} attempt {row.attempt}"
            time.sleep(0.1)

    return wait
