"""``loramill train``: from a config to a trained, recorded, reloadable adapter."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Console

from loramill.cli.config_options import Assignments, ConfigCommand, ConfigFile, read_config
from loramill.cli.run_display import ProgressLines, result_table
from loramill.database import Database
from loramill.errors import LoramillError
from loramill.experiments.folder import ExperimentFolder
from loramill.jobs.execute import execute_training
from loramill.jobs.submit import submit_training
from loramill.settings import Settings

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
    database = Database(settings.effective_database_url)
    database.upgrade()
    if resume:
        folder = ExperimentFolder.open(settings.results_folder, resume)
    else:
        config = read_config(context, config_file, assignments)
        folder = submit_training(config, settings=settings, database=database, enqueue=_run_here)
    console = Console(stderr=True)
    try:
        with stop_on_signals() as should_stop, ProgressLines(console) as progress:
            result = execute_training(
                folder,
                settings=settings,
                database=database,
                on_event=progress.show,
                should_stop=should_stop,
                resume=resume is not None,
                strict=strict,
            )
    except LoramillError as error:
        if as_json:
            failure = {"code": error.code, "message": error.message, "fix": error.fix}
            _print_json(folder, "FAILURE", {}, error=failure)
        raise
    finally:
        database.close()
    finished = result.status == "finished"
    if as_json:
        _print_json(folder, "SUCCESS" if finished else "REVOKED", result.metrics)
    elif finished:
        Console().print(result_table(folder, result.metrics))
    if not finished:
        console.print(f"Stopped ({result.status}). Go on with: loramill train --resume {folder.id}", highlight=False)
    if result.status == "stopped":
        raise typer.Exit(STOPPED_BY_USER)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """While it is open, Ctrl-C and SIGTERM ask to stop at the next step; a second Ctrl-C ends the process at once."""
    stop = threading.Event()

    def ask(_signal: int, _frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

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
