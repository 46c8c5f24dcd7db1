"""``loramill models``: every finished run is a model; stages and aliases say which one is used for what."""

from __future__ import annotations

from typing import Annotated

import typer

from loramill.cli.local import local_name, open_database
from loramill.cli.output import AsJson, print_json
from loramill.cli.tables import data_table, print_people
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.pages import DataTable
from loramill.experiments.record_file import changing
from loramill.experiments.registry import ModelRegistry
from loramill.experiments.search import Order
from loramill.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Find models, move them between stages, give them aliases.")

Reason = Annotated[str, typer.Option(help="Why; kept in the history.")]


@app.command("list")
def list_models(
    base: Annotated[str | None, typer.Option(help="Base model.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the data.")] = None,
    task: Annotated[str | None, typer.Option(help="Task, such as SEQ_CLS.")] = None,
    tag: Annotated[str | None, typer.Option(help="A tag that it has.")] = None,
    stage: Annotated[str | None, typer.Option(help="staging, production or archived.")] = None,
    sort_by: Annotated[str, typer.Option(help="Any metric.")] = "eval_accuracy",
    desc: Annotated[bool, typer.Option("--desc/--asc", help="Largest first.")] = True,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List models, best accuracy first."""
    wanted = ExperimentFilter(model_name=base, language=language, task=task, tag=tag, stage=stage)
    with open_database(Settings.load()) as database, database.reading() as session:
        registry = ModelRegistry(session)
        items = registry.search(wanted, order=Order(sort_by, desc), limit=limit).items
        aliases = {item.id: registry.aliases(item.id) for item in items}
    if as_json:
        print_json([{**item.as_dict(), "aliases": aliases[item.id]} for item in items])
        return
    if not items:
        none = "No models here. `loramill train config/quickstart.yaml` makes one."
        print_people(none if wanted.is_empty else "No model matches.")
        return
    columns = ("model", "stage", "aliases", sort_by, "base", "data")
    rows = [
        (i.id, i.stage, ", ".join(aliases[i.id]), i.metrics.get(sort_by), i.model_name, i.dataset_name) for i in items
    ]
    print_people(data_table(DataTable(columns, tuple(rows))))


@app.command()
def promote(
    experiment_id: str,
    stage: Annotated[str, typer.Argument(help="staging, production, archived, or none.")],
    reason: Reason = "",
) -> None:
    """Move a model to a stage."""
    settings = Settings.load()
    with (
        open_database(settings) as database,
        changing(database, settings.results_folder, experiment_id) as (_, registry),
    ):
        registry.set_stage(experiment_id, None if stage == "none" else stage, by=local_name(), reason=reason)


@app.command()
def alias(
    name: str,
    experiment_id: Annotated[str | None, typer.Argument(help="The model it shall name; nothing removes it.")] = None,
    reason: Reason = "",
) -> None:
    """Let a name point at a model, or remove the name."""
    settings, by = Settings.load(), local_name()
    with open_database(settings) as database:
        with database.reading() as session:
            target = experiment_id or ModelRegistry(session).resolve(name)
        with changing(database, settings.results_folder, target) as (_, registry):
            if experiment_id:
                registry.set_alias(name, experiment_id, by=by, reason=reason)
            else:
                registry.remove_alias(name, by=by, reason=reason)


@app.command()
def history(experiment_id: str, as_json: AsJson = False) -> None:
    """Every move of a model: who, when, why."""
    with open_database(Settings.load()) as database, database.reading() as session:
        moves = ModelRegistry(session).history(experiment_id)
    if as_json:
        print_json([move.as_dict() for move in moves])
        return
    rows = [(f"{m.at.astimezone():%Y-%m-%d %H:%M}", m.by, m.kind, m.old_value, m.new_value, m.reason) for m in moves]
    print_people(data_table(DataTable(("when", "who", "what", "from", "to", "why"), tuple(rows))))
