"""The part of ``loramill experiments`` that changes the record: tags, notes, archive, delete, reindex, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loramill.cli.local import open_database
from loramill.cli.output import AsJson, print_json
from loramill.cli.tables import print_people
from loramill.experiments.deletion import delete_experiment
from loramill.experiments.mlflow_import import import_mlflow
from loramill.experiments.record_file import changing, reindex
from loramill.experiments.trainer_import import import_trainer_folder
from loramill.settings import Settings

app = typer.Typer()


@app.command()
def tag(
    experiment_id: str,
    tags: Annotated[list[str], typer.Argument(metavar="TAG...")],
    remove: Annotated[bool, typer.Option("--remove", help="Take these tags off instead.")] = False,
) -> None:
    """Put tags on an experiment, or take them off."""
    settings = Settings.load()
    with (
        open_database(settings) as database,
        changing(database, settings.results_folder, experiment_id) as (store, _),
    ):
        change = store.remove_tags if remove else store.add_tags
        change(experiment_id, tags)


@app.command()
def note(experiment_id: str, text: str) -> None:
    """Replace the notes of an experiment."""
    settings = Settings.load()
    with (
        open_database(settings) as database,
        changing(database, settings.results_folder, experiment_id) as (store, _),
    ):
        store.set_notes(experiment_id, text)


@app.command()
def archive(
    experiment_ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    undo: Annotated[bool, typer.Option("--undo", help="Show them in lists again.")] = False,
) -> None:
    """Hide experiments from lists; nothing is deleted."""
    settings = Settings.load()
    with open_database(settings) as database:
        for experiment_id in experiment_ids:
            with changing(database, settings.results_folder, experiment_id) as (store, _):
                store.set_archived(experiment_id, not undo)


@app.command()
def delete(
    experiment_ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Delete only the rows; reindex finds them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete experiments and their files."""
    what = "the rows of" if keep_files else "everything of"
    if not yes:
        typer.confirm(f"Delete {what} {', '.join(experiment_ids)}?", abort=True, err=True)
    settings = Settings.load()
    with open_database(settings) as database:
        for experiment_id in experiment_ids:
            delete_experiment(database, settings.results_folder, experiment_id, files=not keep_files)
            print_people(f"Deleted {experiment_id}")


@app.command("reindex")
def reindex_folders(as_json: AsJson = False) -> None:
    """Add the folders under results/ that the database lacks."""
    settings = Settings.load()
    with open_database(settings) as database:
        done = reindex(database, settings.results_folder)
    if as_json:
        print_json(vars(done))
        return
    print_people(f"Added {len(done.added)}, known already {done.known}, unreadable {len(done.unreadable)}.")
    for experiment_id, reason in done.unreadable:
        print_people(f"  {experiment_id}: {reason}")


@app.command("import")
def import_runs(
    source: Annotated[str, typer.Argument(help="Folder with trainer_state.json, or an MLflow tracking URI.")],
    experiment: Annotated[str | None, typer.Option(help="Only this MLflow experiment.")] = None,
    as_json: AsJson = False,
) -> None:
    """Bring in runs of the Transformers Trainer or of MLflow; what is here already is passed over."""
    settings = Settings.load()
    with open_database(settings) as database:
        if "://" in source:
            added = import_mlflow(database, settings.results_folder, source, experiment_name=experiment, warn=_warn)
        else:
            added = import_trainer_folder(database, settings.results_folder, Path(source), warn=_warn)
    if as_json:
        print_json({"added": added})
        return
    for experiment_id in added:
        print_people(f"Imported {experiment_id}")
    print_people(f"{len(added)} runs imported.")


def _warn(message: str) -> None:
    typer.echo(message, err=True)
