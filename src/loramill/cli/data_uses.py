"""Who uses stored versions: what ``loramill data who-used`` tells, and what keeps a version from being deleted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from loramill.cli.data_source import SourceCommand, read_source
from loramill.cli.data_tables import console, uses_table
from loramill.cli.local import open_database
from loramill.cli.output import AsJson, print_json
from loramill.data.datasets import DatasetStore
from loramill.data.lineage import hashes_of, rows_in_versions
from loramill.data.rows import Hashes
from loramill.data.version_manager import DataVersionManager
from loramill.errors import ConflictError, NotFoundError
from loramill.experiments.models import FINISHED, Experiment, ExperimentConfigRow
from loramill.jobs.datasets import uses_of
from loramill.settings import Settings

app = typer.Typer()
VERSION = "version:"


@app.command("who-used", cls=SourceCommand)
def who_used(
    context: typer.Context,
    source: Annotated[str | None, typer.Argument(metavar="[SOURCE]", help="Data set, or version:<id>.")] = None,
    text: Annotated[str | None, typer.Option(help="One text, instead of a whole data set.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the experiments that trained or evaluated on rows of a data set, or on one text."""
    settings = Settings.load()
    if (source is None) == (text is None):
        raise typer.BadParameter("name a SOURCE, or give --text")
    if text is not None:
        wanted = hashes_of([text])
    else:
        _, data = read_source(context, str(source), settings)
        wanted = np.unique(np.concatenate([rows.text_hashes for rows in data.splits.values()]))
    uses = list(_uses_of_rows(wanted, DataVersionManager(settings.data_folder), settings))
    if as_json:
        print_json({"experiments": uses})
    else:
        console().print(uses_table(uses))


def users_of(version_id: str, manager: DataVersionManager, settings: Settings) -> list[str]:
    """Experiments that trained or evaluated on a version or wait to, waiting sweeps, and data sets that hold it."""
    with open_database(settings) as database, database.reading() as session:
        recorded = _recorded_uses(_results_folders(session, settings))
        users = {experiment for experiment, _, used in recorded if used == version_id}
        users.update(uses_of(session, [version_id]), DatasetStore(session).holders(version_id))
        users.update(_waiting_for(version_id, manager, session))
    return sorted(users)


def _uses_of_rows(wanted: Hashes, manager: DataVersionManager, settings: Settings) -> Iterator[dict[str, object]]:
    """One entry for each experiment and split that saw any of the rows."""
    with open_database(settings) as database, database.reading() as session:
        used = list(_recorded_uses(_results_folders(session, settings)))
    known = []
    for version_id in sorted({version_id for _, _, version_id in used}):
        try:
            known.append(manager.get(version_id))
        except NotFoundError:
            typer.echo(f"warning: version {version_id} of an experiment is not in this data folder", err=True)
    rows = rows_in_versions(manager, known, wanted)
    for experiment, split, version_id in used:
        if version_id in rows:
            yield {"experiment_id": experiment, "split": split, "rows": rows[version_id], "version": version_id}


def _results_folders(session: Session, settings: Settings) -> set[Path]:
    """``results/``, and every other folder that a run named with ``training.output_dir``."""
    named = select(ExperimentConfigRow.value["training"]["output_dir"].as_string()).distinct()
    return {settings.results_folder, *(settings.home / folder for folder in session.scalars(named) if folder)}


def _recorded_uses(results: Iterable[Path]) -> Iterator[tuple[str, str, str]]:
    """(experiment, split, version id) of every ``data.json`` under the results; broken ones are skipped."""
    for path in sorted(file for folder in results for file in folder.glob("*/data.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            yield from ((path.parent.name, split, content[split]) for split in ("train", "eval") if content.get(split))
        except (OSError, ValueError, AttributeError):
            typer.echo(f"warning: {path} cannot be read", err=True)


def _waiting_for(version_id: str, manager: DataVersionManager, session: Session) -> Iterator[str]:
    """Unfinished experiments that name a version by a tag or the first digits of its id."""
    waiting = select(Experiment.id, Experiment.dataset_name).where(
        Experiment.dataset_name.startswith(VERSION), Experiment.status.not_in(FINISHED)
    )
    for experiment, name in session.execute(waiting):
        for part in name.removeprefix(VERSION).split("+", 1):
            with contextlib.suppress(NotFoundError, ConflictError):
                if manager.get(part).id == version_id:
                    yield experiment
