"""``loramill experiments``: find, read and compare what was run."""

from __future__ import annotations

import difflib
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loramill.cli import experiment_changes
from loramill.cli.local import open_database
from loramill.cli.moments import Since, Until
from loramill.cli.output import AsJson, print_json
from loramill.cli.tables import data_table, facts_table, print_people
from loramill.experiments.compare import compare_runs
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.folder import ExperimentFolder, results_holding
from loramill.experiments.models import Status
from loramill.experiments.pages import (
    DataTable,
    comparison_page,
    comparison_table,
    group_page,
    group_table,
    metrics_page,
    metrics_table,
)
from loramill.experiments.report import write_report
from loramill.experiments.search import SORT_COLUMNS, Order
from loramill.experiments.store import ExperimentStore
from loramill.experiments.summaries import ExperimentSummary
from loramill.files import write_atomic
from loramill.settings import Settings

GROUPS = {"model": "model_name", "dataset": "dataset_name", "owner": "owner", "status": "status", "task": "task"}

app = typer.Typer(no_args_is_help=True, help="List, show, compare and delete experiments.")
app.add_typer(experiment_changes.app)

CsvFile = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table as CSV.")]
HtmlFile = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots.")]


@app.command("list")
def list_experiments(
    name: Annotated[str | None, typer.Option(help="Parts of the name, in any order and case.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="At least this evaluation accuracy.")] = None,
    max_runtime: Annotated[float | None, typer.Option(help="At most so many seconds of training.")] = None,
    start_date: Since = None,
    end_date: Until = None,
    model_name: Annotated[str | None, typer.Option(help="Base model.")] = None,
    dataset_name: Annotated[str | None, typer.Option(help="Data set.")] = None,
    status: Annotated[Status | None, typer.Option(help="Where it stands.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who submitted it.")] = None,
    tag: Annotated[str | None, typer.Option(help="A tag that it has.")] = None,
    sweep: Annotated[str | None, typer.Option(help="The sweep that it belongs to.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Show the archived ones instead.")] = False,
    sort_by: Annotated[str, typer.Option(help="created_at, name, or any metric.")] = "created_at",
    desc: Annotated[bool, typer.Option("--desc/--asc", help="Largest or newest first.")] = True,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Rows of a page.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Where the next page begins, as the last one said.")] = None,
    as_json: AsJson = False,
) -> None:
    """List experiments, newest first."""
    wanted = ExperimentFilter(
        name=name,
        min_accuracy=min_accuracy,
        max_runtime=max_runtime,
        start_date=start_date,
        end_date=end_date,
        model_name=model_name,
        dataset_name=dataset_name,
        status=status,
        owner=owner,
        tag=tag,
        sweep_id=sweep,
        archived=archived,
    )
    with open_database(Settings.load()) as database, database.reading() as session:
        page = ExperimentStore(session).list_page(wanted, order=Order(sort_by, desc), limit=limit, cursor=cursor)
    if cursor is None:
        _warn_of_unknown_metric(sort_by, page.items)
    if as_json:
        print_json({"experiments": [item.as_dict() for item in page.items], "next_cursor": page.next_cursor})
        return
    if not page.items:
        none = "No experiments here. `loramill train config/quickstart.yaml` makes one."
        print_people(none if wanted.is_empty else "No experiment matches.")
        return
    print_people(summary_table(page.items, sort_by))
    if page.next_cursor:
        print_people(f"More: add --cursor {page.next_cursor}")


def _warn_of_unknown_metric(name: str, first_page: Sequence[ExperimentSummary]) -> None:
    """Runs that lack what they are sorted by come last: where the first page has none, nobody has it."""
    known = {metric for item in first_page for metric in item.metrics}
    if first_page and name not in SORT_COLUMNS and name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        typer.echo(f"No experiment here has the metric {name!r}: they are in the order of their start.{hint}", err=True)


@app.command()
def show(experiment_id: str, as_json: AsJson = False) -> None:
    """Show everything about one experiment."""
    settings = Settings.load()
    with open_database(settings) as database, database.reading() as session:
        store = ExperimentStore(session)
        summary = store.get_summary(experiment_id)
        config, data = store.get(experiment_id).config, store.data_of(experiment_id)
    folder = str(results_holding(settings.results_folder, experiment_id, config) / experiment_id)
    if as_json:
        print_json({**summary.as_dict(), "config": config, "data": data, "folder": folder})
        return
    known = {key: value for key, value in summary.as_dict().items() if value not in (None, "", {}, (), [])}
    metrics = known.pop("metrics", {})
    print_people(facts_table(summary.id, {**known, **metrics, "data": data, "folder": folder}))


@app.command()
def stats(
    owner: Annotated[str | None, typer.Option(help="Only this person's.")] = None, as_json: AsJson = False
) -> None:
    """Totals over all experiments."""
    with open_database(Settings.load()) as database, database.reading() as session:
        totals = vars(ExperimentStore(session).statistics(ExperimentFilter(owner=owner)))
    if as_json:
        print_json(totals)
    else:
        print_people(facts_table("Experiments", totals))


@app.command()
def compare(
    experiment_ids: Annotated[list[str], typer.Argument(metavar="ID ID...", help="2 to 100 experiments.")],
    csv: CsvFile = None,
    html: HtmlFile = None,
    as_json: AsJson = False,
) -> None:
    """What was set differently, what came out, and whether one of them is better by more than luck."""
    settings = Settings.load()
    comparison = compare_runs([_folder_of(name, settings) for name in experiment_ids])
    table = comparison_table(comparison)
    _write(csv, table.as_csv)
    _write(html, lambda: comparison_page(comparison))
    if as_json:
        print_json(comparison.as_dict())
        return
    print_people(data_table(table))
    print_people(comparison.verdict.reason)


@app.command()
def analyze(
    by: Annotated[str, typer.Option(help="model, dataset, owner, status, task, or metrics.")] = "metrics",
    metric: Annotated[str, typer.Option(help="What to compare the groups by.")] = "eval_accuracy",
    csv: CsvFile = None,
    html: HtmlFile = None,
    as_json: AsJson = False,
) -> None:
    """How the runs of each model or data set did, or how each metric is spread over all runs."""
    with open_database(Settings.load()) as database, database.reading() as session:
        store = ExperimentStore(session)
        if by == "metrics":
            lines = store.metric_statistics()
            table, found = metrics_table(lines), [vars(line) for line in lines]
            _write(html, lambda: metrics_page(lines))
        else:
            groups = store.statistics_by(GROUPS.get(by, by), metric)
            if groups and not any(group.count for group in groups):
                typer.echo(f"No experiment here has the metric {metric!r}.", err=True)
            table, found = group_table(by, metric, groups), [vars(group) for group in groups]
            _write(html, lambda: group_page(by, metric, groups))
    _write(csv, table.as_csv)
    if as_json:
        print_json(found)
    else:
        print_people(data_table(table))


@app.command()
def report(
    experiment_id: str, open_page: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False
) -> None:
    """Make the report of a run anew and say where it is."""
    folder = _folder_of(experiment_id, Settings.load())
    write_report(folder)
    print_people(str(folder.report_file))
    if open_page:
        webbrowser.open(folder.report_file.absolute().as_uri())


def _folder_of(experiment_id: str, settings: Settings) -> ExperimentFolder:
    """The folder of an experiment, also of one that the record does not know, or that lies elsewhere.

    Raises:
        NotFoundError: there is none.
    """
    with open_database(settings) as database, database.reading() as session:
        known = ExperimentStore(session).find(experiment_id)
        config = known.config if known else {}
    return ExperimentFolder.open(results_holding(settings.results_folder, experiment_id, config), experiment_id)


def summary_table(items: tuple[ExperimentSummary, ...], sort_by: str = "created_at") -> Table:
    """Experiments as rows: what a person scans for first, and what they sorted by."""
    extra = () if sort_by in ("created_at", "name", "eval_accuracy", "train_runtime") else (sort_by,)
    columns = ("experiment", "status", "accuracy", "seconds", *extra, "model", "data", "created", "tags")
    rows = [
        (
            item.id,
            item.status,
            item.eval_accuracy,
            item.train_runtime,
            *(item.metrics.get(name) for name in extra),
            item.model_name,
            item.dataset_name,
            f"{item.created_at.astimezone():%Y-%m-%d %H:%M}",
            ", ".join(item.tags),
        )
        for item in items
    ]
    return data_table(DataTable(columns, tuple(rows)))


def _write(path: Path | None, make: Callable[[], str]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, make())
        typer.echo(f"Wrote {path}", err=True)
