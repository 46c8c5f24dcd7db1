"""Doing accepted work: the record around one ``run_training``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import TimeLimitError
from loramill.experiments.folder import ExperimentFolder
from loramill.imports import large_import
from loramill.jobs.folders import recorded_config
from loramill.jobs.lease import Claim
from loramill.jobs.record import EventSink, RunRecord
from loramill.jobs.together import call_others
from loramill.monitor.logs import open_run_log
from loramill.settings import Settings

if TYPE_CHECKING:
    from loramill.training.run import RunResult

OUT_OF_TIME = {"code": TimeLimitError.code, "message": "training.max_seconds is over; resume the run to go on."}


def execute_training(
    folder: ExperimentFolder,
    *,
    settings: Settings,
    database: Database,
    on_event: EventSink,
    should_stop: Callable[[], bool],
    resume: bool = False,
    strict: bool = False,
    claim: Claim | None = None,
) -> RunResult:
    """Run one experiment to its end and record how it ended.

    Args:
        claim: of a worker, who alone knows why it asks to stop: a run that was asked to is left to it to record.

    Raises:
        ConflictError: the claim was lost; nothing was recorded.
        LoramillError: the run failed; the row says FAILURE with the error's code.
    """
    config = recorded_config(folder)
    with open_run_log(folder.log_file, config.system.log_level) as log:
        record = RunRecord(database, folder, log, on_event, claim)
        try:
            record.started(resumed=resume)  # before torch is imported: what waits for long is given to a worker
            try:
                record.report_to_trackers(config)
                stop = should_stop if claim else lambda: should_stop() or record.is_cancelled
                result = _train(config, folder, settings.data_folder, record.emit, stop, resume=resume, strict=strict)
            except Exception as error:
                record.failed(error)
                raise
            if result.status == "finished":
                record.finished(result.metrics)
            elif claim is None or result.status == "time_limit":
                record.stopped(**(OUT_OF_TIME if result.status == "time_limit" else {}))
        except KeyboardInterrupt:  # a second Ctrl-C: not even the step, or the import, or this record is finished
            record.interrupted()
            raise
    return result


def _train(
    config: ExperimentConfig,
    folder: ExperimentFolder,
    data_folder: Path,
    on_event: EventSink,
    should_stop: Callable[[], bool],
    *,
    resume: bool,
    strict: bool,
) -> RunResult:
    """The run itself, with the other processes of this machine if there are any."""
    with large_import():
        from loramill.training.run import run_training  # torch is imported only where work is done

    call_others(folder, resume=resume, strict=strict)
    return run_training(
        config,
        folder=folder,
        data_folder=data_folder,
        on_event=on_event,
        should_stop=should_stop,
        resume=resume,
        strict=strict,
    )
