"""Doing accepted work: the row, the log and the events around one ``run_training``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from structlog.typing import FilteringBoundLogger

from loramill.config.load import parse_config, read_yaml
from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import LoramillError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.store import ExperimentStore
from loramill.jobs.events import describe_event
from loramill.monitor.logs import open_run_log
from loramill.settings import Settings

if TYPE_CHECKING:
    from loramill.training.run import RunResult

EventSink = Callable[[dict[str, Any]], None]


def execute_training(
    folder: ExperimentFolder,
    *,
    settings: Settings,
    database: Database,
    on_event: EventSink,
    should_stop: Callable[[], bool],
    resume: bool = False,
    strict: bool = False,
) -> RunResult:
    """Run one experiment to its end and record how it ended.

    Raises:
        LoramillError: the run failed; the row says FAILURE with the error's code.
    """
    from loramill.training.run import run_training  # torch is imported only where work is done

    config = recorded_config(folder)
    record = _Record(database, folder)
    with open_run_log(folder.log_file, config.system.log_level) as log:
        sink = _event_sink(folder, log, on_event)
        record.started(resumed=resume)
        sink({"type": "status", "status": "STARTED"})
        try:
            result = run_training(
                config,
                folder=folder,
                data_folder=settings.data_folder,
                on_event=sink,
                should_stop=should_stop,
                resume=resume,
                strict=strict,
            )
        except Exception as error:
            record.failed(error)
            sink({"type": "status", "status": "FAILURE", "code": _code(error), "message": _message(error)})
            raise
        record.ended(result)
        sink({"type": "status", "status": "SUCCESS" if result.status == "finished" else "REVOKED"})
    return result


class _Record:
    """The experiment's row, changed in transactions of its own."""

    def __init__(self, database: Database, folder: ExperimentFolder) -> None:
        self._database, self._folder = database, folder

    def started(self, *, resumed: bool) -> None:
        with self._database.transaction() as session:
            store = ExperimentStore(session)
            if resumed:
                store.mark_resumed(self._folder.id)
            store.mark_started(self._folder.id)

    def ended(self, result: RunResult) -> None:
        with self._database.transaction() as session:
            store = ExperimentStore(session)
            if result.status != "finished":
                store.mark_revoked(self._folder.id)
                return
            store.mark_finished(self._folder.id, result.metrics)
            data = self._folder.read_data()
            for role in ("train", "eval"):
                store.link_data(self._folder.id, role, [data[role]])

    def failed(self, error: Exception) -> None:
        with self._database.transaction() as session:
            ExperimentStore(session).mark_failed(self._folder.id, _code(error), _message(error))


def _event_sink(folder: ExperimentFolder, log: FilteringBoundLogger, on_event: EventSink) -> EventSink:
    """Every event goes to ``events.jsonl``, as a sentence to ``logs.txt``, and to the caller."""

    def sink(event: dict[str, Any]) -> None:
        stamped = {"time": time.time(), **event}
        folder.append_event(stamped)
        if sentence := describe_event(event):
            (log.warning if event["type"] == "warning" else log.info)(sentence)
        on_event(stamped)

    return sink


def _code(error: Exception) -> str:
    return error.code if isinstance(error, LoramillError) else "internal_error"


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, LoramillError) else f"{type(error).__name__}: {error}"


def recorded_config(folder: ExperimentFolder) -> ExperimentConfig:
    """The config that an experiment was submitted with."""
    return parse_config(read_yaml(folder.config_file), source=str(folder.config_file))
