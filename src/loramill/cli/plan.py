"""``loramill plan``: what a run will take, before it starts."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from loramill.cli.config_options import Assignments, ConfigCommand, ConfigFile, read_config
from loramill.settings import Settings

app = typer.Typer()


@app.command(cls=ConfigCommand)
def plan(
    context: typer.Context,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Estimate memory, time and disk of a run from a few of its real steps. Nothing is kept."""
    config = read_config(context, config_file, assignments)
    from loramill.training.plan import plan_run  # torch is imported only after the config was found to be right

    forecast = plan_run(config, data_folder=Settings.load().data_folder)
    if as_json:
        typer.echo(json.dumps(forecast.as_dict()))
        return
    table = Table(title=f"Plan of {config.experiment_name}", show_header=False, title_justify="left")
    table.add_row("device", forecast.device)
    table.add_row("rows", f"{forecast.train_rows:,} to train on, {forecast.eval_rows:,} to evaluate on")
    table.add_row("steps", f"{forecast.steps:,}")
    table.add_row("trained parameters", f"{forecast.trainable_parameters:,}")
    table.add_row("memory", f"{forecast.memory_bytes / 2**30:.2f} GiB of {forecast.memory_free_bytes / 2**30:.1f} free")
    table.add_row("time", f"{forecast.seconds:.0f} s, of which training {forecast.train_seconds:.0f} s")
    table.add_row("disk", f"{forecast.disk_bytes / 2**20:.1f} MiB")
    if not forecast.fits:
        table.add_row("note", "The longest rows do not fit at once: the run will use smaller micro-batches.")
    Console().print(table)
