"""``loramill sweep``: many trials on one base, side by side."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from loramill.cli.config_options import Assignments, ConfigCommand, ConfigFile, read_config
from loramill.cli.run_display import SweepLines
from loramill.cli.tables import print_people
from loramill.cli.train import STOPPED_BY_USER, stop_on_signals
from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.experiments.folder import ExperimentFolder
from loramill.jobs.execute import recorded_config
from loramill.jobs.sweep import Sweep, SweepRunner, TrialEntry, iter_unfinished, new_sweep
from loramill.settings import Settings
from loramill.sweeps.halving import Halving
from loramill.sweeps.space import Sampler, SearchSpace, choose_trials, parse_space
from loramill.sweeps.tpe import TpeSearch

app = typer.Typer()


@app.command(cls=ConfigCommand)
def sweep(
    context: typer.Context,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="KEY=V,V", help="Vary a key: lora.r=4,8 or training.learning_rate=1e-4..1e-2."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="How many trials; all of a grid if absent.")
    ] = None,
    sampler: Annotated[Sampler | None, typer.Option(help="How trials are chosen; grid or random by itself.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Trials that tpe asks for at a time.")] = 8,
    halving: Annotated[
        bool, typer.Option("--halving", help="Stop the worse trials early (successive halving).")
    ] = False,
    keep: Annotated[int, typer.Option(min=2, help="With --halving: one trial in so many goes on.")] = 4,
    rungs: Annotated[int, typer.Option(min=1, help="With --halving: how often trials are compared.")] = 2,
    resume: Annotated[str | None, typer.Option(metavar="ID", help="Go on with an interrupted sweep.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Train many trials on one base, side by side, and find the best."""
    settings = Settings.load()
    database = Database(settings.effective_database_url)
    database.upgrade()
    console = Console(stderr=True)
    with stop_on_signals() as should_stop, SweepLines(console) as progress:
        wiring: dict[str, Any] = {
            "settings": settings,
            "database": database,
            "on_event": progress.show,
            "should_stop": should_stop,
        }
        if resume:
            runner = SweepRunner(Sweep.load(settings, resume), **wiring)
            runner.run(list(iter_unfinished(runner.sweep)), resume=True)
        else:
            config = read_config(context, config_file, assignments)
            runner = SweepRunner(new_sweep(config, halving=Halving(keep, rungs) if halving else None), **wiring)
            _search(runner, config, parse_space(grid or []), sampler, trials, batch)
    database.close()
    if as_json:
        typer.echo(json.dumps(_document(runner.sweep, settings), ensure_ascii=False))
    else:
        print_people(_table(runner.sweep))
    if any(trial.status == "REVOKED" for trial in runner.sweep.trials):
        console.print(f"Stopped. Go on with: loramill sweep --resume {runner.sweep.sweep_id}", highlight=False)
        raise typer.Exit(STOPPED_BY_USER)


def _search(
    runner: SweepRunner,
    config: ExperimentConfig,
    space: SearchSpace,
    sampler: Sampler | None,
    trials: int | None,
    batch: int,
) -> None:
    """Run one batch of all trials; tpe learns from each batch before it asks for the next."""
    seed = config.training.seed
    if sampler != "tpe":
        runner.run(runner.submit(config, choose_trials(space, sampler, trials, seed)))
        return
    search, remaining = TpeSearch(space, seed), trials or 16
    while remaining > 0:
        entries = runner.submit(config, search.ask(min(batch, remaining)))
        runner.run(entries)
        if any(entry.status == "REVOKED" for entry in entries):
            return
        search.tell([entry.score for entry in entries])
        remaining -= len(entries)


def _document(sweep: Sweep, settings: Settings) -> dict[str, Any]:
    return {
        "sweep_id": sweep.sweep_id,
        "best": sweep.best.experiment_id if sweep.best else None,
        "trials": [_trial(entry, settings) for entry in sweep.trials],
    }


def _trial(entry: TrialEntry, settings: Settings) -> dict[str, Any]:
    folder = ExperimentFolder.open(settings.results_folder, entry.experiment_id)
    return {
        "experiment_id": entry.experiment_id,
        "folder": str(folder.path),
        "overrides": entry.overrides,
        "config": recorded_config(folder).model_dump(mode="json"),
        "metrics": folder.read_metrics(),
        "status": entry.status,
    }


def _table(sweep: Sweep) -> Table:
    """Trials, best first; those that were stopped early come after those that ran to their end."""
    keys = list(dict.fromkeys(key for trial in sweep.trials for key in trial.overrides))
    table = Table(title=f"Sweep {sweep.sweep_id}", title_justify="left")
    table.add_column("trial", no_wrap=True)
    for name in (*keys, sweep.metric, "status"):
        table.add_column(name, overflow="fold")
    ranked = sorted(sweep.trials, key=lambda trial: (trial.status != "SUCCESS", -(trial.score or 0.0)))
    for trial in ranked:
        values = [_shown(trial.overrides.get(key)) for key in keys]
        score = f"{abs(trial.score):.4f}" if trial.score is not None else ""
        best = "bold green" if trial is sweep.best else None
        table.add_row(trial.experiment_id, *values, score, trial.status, style=best)
    return table


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
