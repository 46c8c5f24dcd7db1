"""``loramill experiments``: find, read and compare what was run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from loramill.cli.output import AsJson, print_json
from loramill.database import Database
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.search import Order
from loramill.experiments.store import ExperimentStore
from loramill.experiments.summaries import ExperimentSummary
from loramill.settings import Settings

app = typer.Typer(no_args_is_help=True, help="List, show, compare and delete experiments.")


@app.command("list")
def list_experiments(
    name: Annotated[str | None, typer.Option(help="Part of the name.")] = None,
    status: Annotated[str | None, typer.Option(help="PENDING, STARTED, PROGRESS, SUCCESS, FAILURE or REVOKED.")] = None,
    sort_by: Annotated[str, typer.Option(help="created_at, name, or any metric.")] = "created_at",
    desc: Annotated[bool, typer.Option("--desc/--asc", help="Largest or newest first.")] = True,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List experiments, newest first."""
    with open_store() as store:
        page = store.list_page(ExperimentFilter(name=name, status=status), order=Order(sort_by, desc), limit=limit)
    if as_json:
        print_json({"experiments": [item.as_dict() for item in page.items], "next_cursor": page.next_cursor})
    else:
        Console().print(summary_table(page.items))


@app.command()
def show(experiment_id: str, as_json: AsJson = False) -> None:
    """Show everything about one experiment."""
    settings = Settings.load()
    with open_store(settings) as store:
        summary = store.get_summary(experiment_id)
        config = store.get(experiment_id).config
    folder = ExperimentFolder(settings.results_folder / experiment_id)
    if as_json:
        print_json({**summary.as_dict(), "config": config, "folder": str(folder.path)})
        return
    table = Table("field", "value", title=summary.id, show_header=False)
    for key, value in summary.as_dict().items():
        if value not in (None, "", {}, ()) and key != "metrics":
            table.add_row(key, str(value))
    for key, number in summary.metrics.items():
        table.add_row(key, f"{number:.6g}")
    table.add_row("folder", str(folder.path))
    Console().print(table)


@contextlib.contextmanager
def open_store(settings: Settings | None = None) -> Iterator[ExperimentStore]:
    """A store for reading, on a database that is up to date."""
    database = Database((settings or Settings.load()).effective_database_url)
    try:
        database.upgrade()
        with database.reading() as session:
            yield ExperimentStore(session)
    finally:
        database.close()


def summary_table(items: tuple[ExperimentSummary, ...]) -> Table:
    """Experiments as rows: what a person scans for first."""
    table = Table("experiment", "status", "accuracy", "runtime", "model", "data", "created")
    for item in items:
        table.add_row(
            item.id,
            item.status,
            "" if item.eval_accuracy is None else f"{item.eval_accuracy:.4f}",
            "" if item.train_runtime is None else f"{item.train_runtime:.1f} s",
            item.model_name,
            item.dataset_name,
            f"{item.created_at.astimezone():%Y-%m-%d %H:%M}",
        )
    return table
