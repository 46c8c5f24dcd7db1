"""The record around a run in this process, as a second Ctrl-C may cut it short anywhere."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.control import request_cancel
from loramill.jobs.execute import execute_training
from loramill.jobs.reaper import Reaper
from loramill.jobs.submit import submit_training
from loramill.settings import Settings
from small_models import save_small_model
from small_runs import small_config, write_rows


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    folder = tmp_path_factory.mktemp("given")
    save_small_model("bert", folder / "model")
    write_rows(folder / "rows")
    return small_config(folder / "model", folder / "rows", training__num_train_epochs=1)


def run(
    config: ExperimentConfig, settings: Settings, database: Database, *, stop: bool, cut_at: int
) -> tuple[ExperimentFolder, bool]:
    """A run of which the commit number ``cut_at`` is interrupted before it is done, and whether there was one."""
    folder = submit_training(config, settings=settings, database=database, enqueue=lambda _experiment_id: None)
    commits = 0

    def interrupt(_connection: object) -> None:
        nonlocal commits
        commits += 1
        if commits == cut_at:
            raise KeyboardInterrupt

    event.listen(database.engine, "commit", interrupt)
    try:
        execute_training(
            folder, settings=settings, database=database, on_event=lambda _event: None, should_stop=lambda: stop
        )
    except KeyboardInterrupt:
        return folder, True
    finally:
        event.remove(database.engine, "commit", interrupt)
    return folder, False


@pytest.mark.parametrize(
    ("stop", "end"), [(True, Status.REVOKED), (False, Status.SUCCESS)], ids=["stopped", "finished"]
)
def test_an_interruption_at_any_write_of_the_record_is_recorded(
    stop: bool, end: Status, config: ExperimentConfig, tmp_path: Path, database: Database
) -> None:
    settings = Settings(home=tmp_path)
    cut_at, interrupted = 0, True
    while interrupted:
        cut_at += 1
        folder, interrupted = run(config, settings, database, stop=stop, cut_at=cut_at)
        with database.reading() as session:
            status = ExperimentStore(session).get(folder.id).status
        assert status == Status.REVOKED if interrupted else status == end
        assert json.loads((folder.path / "record.json").read_text(encoding="utf-8"))["status"] == status
    assert cut_at > 2


def test_a_run_at_the_shell_is_not_given_to_a_worker_while_it_imports(
    config: ExperimentConfig, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, published = 0.0, list[str]()
    reaper = Reaper(database, publish=published.append, queue_is_empty=lambda: True, clock=lambda: seconds)

    @contextlib.contextmanager
    def slow_import() -> Iterator[None]:
        nonlocal seconds
        for _ in range(2):
            reaper.tick()
            seconds += 1000
        yield

    monkeypatch.setattr("loramill.jobs.execute.large_import", slow_import)
    run(config, Settings(home=tmp_path), database, stop=True, cut_at=0)
    assert seconds == 2000
    assert published == []


def test_a_run_at_the_shell_that_is_cancelled_over_the_network_stops(
    config: ExperimentConfig, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loramill.jobs.record.PROGRESS_SECONDS", 0.0)
    longer = config.model_copy(
        update={"training": config.training.model_copy(update={"num_train_epochs": 50, "logging_steps": 1})}
    )
    settings = Settings(home=tmp_path)
    folder = submit_training(longer, settings=settings, database=database, enqueue=lambda _experiment_id: None)
    asked = False

    def cancel(event: dict[str, object]) -> None:
        nonlocal asked
        if event["type"] == "log" and not asked:
            asked = True
            with database.transaction() as session:
                assert request_cancel(session, folder.id)

    result = execute_training(folder, settings=settings, database=database, on_event=cancel, should_stop=lambda: False)
    assert result.status == "stopped"
    with database.reading() as session:
        assert ExperimentStore(session).get(folder.id).status == Status.REVOKED


def test_a_run_that_its_time_limit_ended_says_so(config: ExperimentConfig, tmp_path: Path, database: Database) -> None:
    """Otherwise its owner looks for who cancelled it."""
    training = config.training.model_copy(update={"max_seconds": 1e-9})
    limited = config.model_copy(update={"training": training})
    folder, _ = run(limited, Settings(home=tmp_path), database, stop=False, cut_at=0)
    last = folder.read_events()[-1]
    assert (last["status"], last["code"]) == ("REVOKED", "time_limit")
    assert "[time_limit] training.max_seconds is over" in folder.read_log()
