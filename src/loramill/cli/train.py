"""``loramill train``: from a config to a trained, recorded, reloadable adapter."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from loramill.cli.config_options import Assignments, ConfigCommand, ConfigFile, read_config, read_overrides
from loramill.cli.local import open_database
from loramill.cli.run_display import ProgressLines, result_table
from loramill.database import Database
from loramill.errors import ConfigError, LoramillError, Problem
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.execute import execute_training
from loramill.jobs.folders import recorded_config
from loramill.jobs.submit import submit_training
from loramill.jobs.together import follow_training, follows
from loramill.settings import Settings

if TYPE_CHECKING:
    from loramill.training.run import RunResult

STOPPED_BY_USER = 130

app = typer.Typer()


@app.command(cls=ConfigCommand)
def train(
    context: typer.Context,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with a stopped or crashed experiment.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse data with any error-level finding.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Train an adapter from a config. Every key of the config is a flag too."""
    settings = Settings.load()
    if follows():
        with stop_on_signals() as should_stop:
            follow_training(settings, should_stop)
        return
    if resume:
        overrides = read_overrides(context, assignments)
        folder = _folder_to_resume(resume, settings, overrides, config_file)
    else:
        config = read_config(context, config_file, assignments)
    with open_database(settings) as database:
        if not resume:
            folder = submit_training(config, settings=settings, database=database, enqueue=_run_here)
        elif _has_finished(folder, database):
            Console(stderr=True).print(f"{escape(folder.id)} has finished already.", highlight=False, soft_wrap=True)
            _report(folder, "finished", folder.read_metrics(), as_json=as_json)
            return
        try:
            result = _train(folder, settings, database, resume=resume is not None, strict=strict)
        except LoramillError as error:
            if as_json:
                failure = {"code": error.code, "message": error.message, "fix": error.fix}
                _print_json(folder, "FAILURE", {}, error=failure)
            raise
    _report(folder, result.status, result.metrics, as_json=as_json)


def _folder_to_resume(
    experiment_id: str, settings: Settings, overrides: dict[str, object], config_file: Path | None
) -> ExperimentFolder:
    """The folder of an earlier run, which keeps its config; only where to look for it may be said.

    Raises:
        ConfigError: anything else of the config was given, and would be ignored.
        NotFoundError: there is no such experiment.
    """
    results = str(overrides.pop("training.output_dir", settings.results_folder.name))
    given = {**({str(config_file): None} if config_file else {}), **overrides}
    if given:
        message = "a resumed run keeps the config that it was started with"
        problems = [Problem(key, value, message) for key, value in given.items()]
        raise ConfigError(problems, source="--resume", fix="Leave it out, or start a new run without --resume.")
    return ExperimentFolder.open(settings.home / results, experiment_id)


def _train(
    folder: ExperimentFolder, settings: Settings, database: Database, *, resume: bool, strict: bool
) -> RunResult:
    with stop_on_signals() as should_stop, ProgressLines(Console(stderr=True)) as progress:
        return execute_training(
            folder,
            settings=settings,
            database=database,
            on_event=progress.show,
            should_stop=should_stop,
            resume=resume,
            strict=strict,
        )


def _has_finished(folder: ExperimentFolder, database: Database) -> bool:
    """Whether nothing is left to do; a model that is there must not be put at risk."""
    with database.reading() as session:
        return ExperimentStore(session).get(folder.id).status == Status.SUCCESS


def _report(folder: ExperimentFolder, status: str, metrics: dict[str, Any], *, as_json: bool) -> None:
    """Say how a run ended, and leave with 130 when a person ended it."""
    finished = status == "finished"
    if as_json:
        _print_json(folder, "SUCCESS" if finished else "REVOKED", metrics)
    elif finished:
        Console().print(result_table(folder, metrics))
    if not finished:
        results = recorded_config(folder).training.output_dir
        where = "" if results == "results" else f" --output_dir {results}"
        hint = f"Stopped ({status}). Go on with: loramill train --resume {folder.id}{where}"
        Console(stderr=True).print(escape(hint), highlight=False, soft_wrap=True)
    if status == "stopped":
        raise typer.Exit(STOPPED_BY_USER)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """While it is open, Ctrl-C and SIGTERM ask to stop at the next step; a second Ctrl-C raises at once.

    More of them are ignored: what is left is to record that it ended.
    """
    stop = threading.Event()

    def ask(_signal: int, _frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, interrupt)

    def interrupt(_signal: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_here(_experiment_id: str) -> None:
    """The shell needs no queue: the command goes on with the run itself."""


def _print_json(folder: ExperimentFolder, status: str, metrics: dict[str, Any], **more: object) -> None:
    document = {"experiment_id": folder.id, "folder": str(folder.path), "status": status, "metrics": metrics, **more}
    typer.echo(json.dumps(document, ensure_ascii=False))
