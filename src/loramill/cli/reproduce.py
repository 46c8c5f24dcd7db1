"""``loramill reproduce``: the same rows, config and seed again, and whether the same model comes out."""

from __future__ import annotations

import typer
from rich.console import Console

from loramill.cli.local import open_database
from loramill.cli.output import AsJson, print_json
from loramill.cli.run_display import ProgressLines
from loramill.cli.tables import facts_table, print_people
from loramill.cli.train import STOPPED_BY_USER, stop_on_signals
from loramill.experiments.reproduction import Reproduction, config_to_repeat, hold_against
from loramill.experiments.store import ExperimentStore
from loramill.imports import large_import
from loramill.jobs.execute import execute_training
from loramill.jobs.submit import submit_training
from loramill.settings import Settings

app = typer.Typer()


@app.command()
def reproduce(experiment_id: str, as_json: AsJson = False) -> None:
    """Train an experiment again and hold the two models against each other; exit code 1 when they differ."""
    with large_import():  # torch
        from loramill.inference.model_names import resolve_experiment

    settings = Settings.load()
    original = resolve_experiment(settings, experiment_id)
    config = config_to_repeat(original)
    with open_database(settings) as database:
        repetition = submit_training(config, settings=settings, database=database, enqueue=lambda _id: None)
        with database.transaction() as session:
            ExperimentStore(session).set_parent(repetition.id, original.id, "reproduce")
        with stop_on_signals() as should_stop, ProgressLines(Console(stderr=True)) as progress:
            result = execute_training(
                repetition, settings=settings, database=database, on_event=progress.show, should_stop=should_stop
            )
    if result.status != "finished":
        raise typer.Exit(STOPPED_BY_USER)
    found = hold_against(original, repetition)
    if as_json:
        print_json(found.as_dict())
    else:
        _print(found)
    if not found.equal:
        raise typer.Exit(1)


def _print(found: Reproduction) -> None:
    facts = {
        "adapter of the original": found.hashes[0],
        "adapter of the repetition": found.hashes[1],
        "largest difference of a weight": found.difference,
        "the same rows": found.same_data,
        **{f"differs: {name}": f"{first} / {second}" for name, (first, second) in found.metrics.items()},
        **{f"differs: {name}": f"{first} / {second}" for name, (first, second) in found.environment.items()},
    }
    print_people(facts_table(f"{found.original} and {found.repetition}", facts))
    print_people("Equal, bit for bit." if found.equal else "Not equal.")
