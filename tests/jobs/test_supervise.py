"""A worker's side of a job, with children that do as little as the test needs."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from loramill.database import Database
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Experiment, Status
from loramill.experiments.record_file import reindex
from loramill.experiments.store import ExperimentStore
from loramill.jobs import retries
from loramill.jobs.control import request_cancel
from loramill.jobs.gpus import GpuSlots
from loramill.jobs.supervise import Supervisor
from loramill.settings import Settings

SUCCEEDS_SLOWLY = """
import json, os, sys, time
from loramill.database import Database
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.store import ExperimentStore
from loramill.jobs.gpus import GpuSlots
from loramill.jobs.supervise import Supervisor
from loramill.settings import Settings
settings = Settings.load()
work = json.loads(sys.stdin.readline())
name, attempt = work["job"], work["attempt"]
with Database(settings.effective_database_url).transaction() as session:
    ExperimentStore(session).mark_finished(name, {}, attempt=attempt)
time.sleep(4)
ExperimentFolder.open(settings.results_folder, name).append_event({"type": "status", "status": "SUCCESS"})
"""
IGNORES_SIGNALS = """
import signal, subprocess, sys, time
sys.stdin.readline()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", "{home}"], start_new_session=True)
time.sleep(300)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    (tmp_path / "results" / "job").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def supervise(home: Path, database: Database) -> Callable[..., Supervisor]:
    def make(script: str, draining: Callable[[], bool] = lambda: False) -> Supervisor:
        command = (sys.executable, "-c", script)
        settings = Settings(home=home)  # type: ignore[call-arg]
        return Supervisor(settings, database, worker="w", draining=draining, command=command)

    return make


def statuses(home: Path) -> list[str]:
    return [event["status"] for event in ExperimentFolder(home / "results" / "job").read_events()]


def test_a_message_about_nothing_starts_nothing(
    supervise: Callable[..., Supervisor], submit: Callable[..., str]
) -> None:
    supervise("raise SystemExit(1)").do_next("job")


def test_a_child_that_dies_is_a_setback(
    supervise: Callable[..., Supervisor], submit: Callable[..., str], row: Callable[..., Experiment], home: Path
) -> None:
    submit()
    supervise("raise SystemExit(3)").do_next("job")
    assert (row().status, row().setbacks, row().attempt) == (Status.PENDING, 1, 1)
    assert statuses(home) == ["PENDING"]


def test_what_an_attempt_leaves_on_disk_is_counted(
    supervise: Callable[..., Supervisor], submit: Callable[..., str], row: Callable[..., Experiment], home: Path
) -> None:
    submit()
    (home / "results" / "job" / "artifacts").mkdir()
    (home / "results" / "job" / "artifacts" / "weights").write_bytes(bytes(5000))
    supervise("raise SystemExit(3)").do_next("job")
    files = ("events.jsonl", "record.json")
    assert row().stored_bytes == 5000 + sum((home / "results" / "job" / name).stat().st_size for name in files)


def test_a_job_that_its_child_did_not_end_keeps_its_owner_without_the_database(
    supervise: Callable[..., Supervisor], submit: Callable[..., str], row: Callable[..., Experiment],
    database: Database, home: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    submit(owner="u1")
    (home / "results" / "job" / "config.yaml").write_text("{}")
    monkeypatch.setattr(retries, "MAX_SETBACKS", {})
    supervise("raise SystemExit(3)").do_next("job")
    with database.transaction() as session:
        ExperimentStore(session).delete("job")
    reindex(database, home / "results")
    assert (row().owner, row().status, row().error_code) == ("u1", Status.FAILURE, "worker_lost")


def test_a_worker_that_drains_takes_nothing(
    supervise: Callable[..., Supervisor], submit: Callable[..., str], row: Callable[..., Experiment]
) -> None:
    submit()
    supervise("raise SystemExit(3)", draining=lambda: True).do_next("job")
    assert (row().status, row().attempt) == (Status.PENDING, 0)


@pytest.mark.slow
def test_a_child_that_has_recorded_its_end_writes_its_last_event(
    supervise: Callable[..., Supervisor], submit: Callable[..., str], row: Callable[..., Experiment], home: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    submit()
    caplog.set_level(logging.INFO)
    supervise(SUCCEEDS_SLOWLY).do_next("job")
    assert row().status == Status.SUCCESS
    assert "Attempt 1 at job ended: by itself, exit code 0" in caplog.text
    assert statuses(home) == ["SUCCESS"]


def test_the_end_of_a_child_that_was_killed_before_it_told_of_it_is_told(
    supervise: Callable[..., Supervisor], submit: Callable[..., str], row: Callable[..., Experiment], home: Path
) -> None:
    submit()
    supervise(SUCCEEDS_SLOWLY.replace("time.sleep(4)", "os.kill(os.getpid(), 9)")).do_next("job")
    assert (row().status, row().attempt) == (Status.SUCCESS, 1)
    assert statuses(home) == ["SUCCESS"]


@pytest.mark.slow
def test_cancelling_ends_the_whole_tree_in_seconds(
    supervise: Callable[..., Supervisor], submit: Callable[..., str], row: Callable[..., Experiment],
    database: Database, home: Path,
) -> None:  # fmt: skip
    submit()
    worker = threading.Thread(target=supervise(IGNORES_SIGNALS.format(home=home)).do_next, args=("job",))
    worker.start()
    until = time.monotonic() + 30
    while len(sleepers(home)) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert len(sleepers(home)) == 2
    started = time.monotonic()
    with database.transaction() as session:
        request_cancel(session, "job")
    worker.join(60)
    assert time.monotonic() - started <= 20  # ten on a free machine, as tests/faults has it
    assert not sleepers(home)
    assert row().status == Status.REVOKED
    assert statuses(home) == ["REVOKED"]


def sleepers(home: Path) -> list[psutil.Process]:
    """What the child has started, and the child: its script names the same folder."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(home) in " ".join(p.info["cmdline"] or [])]


TELLS_ITS_GPU = """
import json, os, sys
from pathlib import Path
work = json.loads(sys.stdin.readline())
Path(os.environ["LORAMILL_HOME"], work["job"] + ".gpu").write_text(str(work["gpu"]))
"""


def test_the_first_in_line_is_done_whatever_the_message_names(
    home: Path, database: Database, submit: Callable[..., str], row: Callable[..., Experiment]
) -> None:
    outcomes: list[str] = []
    supervisor = Supervisor(
        Settings(home=home),  # type: ignore[call-arg]
        database,
        worker="w",
        draining=lambda: False,
        command=(sys.executable, "-c", TELLS_ITS_GPU),
        gpus=GpuSlots(["7"]),
        on_ended=lambda outcome, _seconds: outcomes.append(outcome),
    )
    for name, priority in (("late", 0), ("later", 0), ("urgent", 5), ("humble", -1)):
        submit(name, priority=priority, task_id=f"task of {name}")
    done = []
    for _ in range(4):
        supervisor.do_next("late")
        done += [name for name in ("late", "later", "urgent", "humble") if row(name).attempt and name not in done]
    assert done == ["urgent", "late", "later", "humble"]
    submit("at the shell", priority=9)
    supervisor.do_next("late")
    assert row("at the shell").attempt == 0, "a person is about to run it there"
    assert (home / "urgent.gpu").read_text() == "7"
    assert outcomes == ["PENDING"] * 4


@pytest.mark.slow
def test_an_attempt_has_a_time_limit(
    home: Path, database: Database, submit: Callable[..., str], row: Callable[..., Experiment]
) -> None:
    submit()
    settings = Settings(home=home, job_seconds=0.5)  # type: ignore[call-arg]
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    Supervisor(settings, database, worker="w", draining=lambda: False, command=command).do_next("job")
    assert (row().status, row().error_code) == (Status.FAILURE, "time_limit")
