"""``loramill sweep``: many trials on one base, side by side."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loramill.cli.config_options import Assignments, ConfigCommand, ConfigFile, read_config
from loramill.cli.local import local_name, open_database
from loramill.cli.run_display import SweepLines
from loramill.cli.tables import print_people
from loramill.cli.train import STOPPED_BY_USER, stop_on_signals
from loramill.errors import LoramillError
from loramill.experiments.sweep_report import REPORT_FILE, SweepView
from loramill.jobs.folders import recorded_config
from loramill.jobs.sweep import Sweep, SweepRunner, TrialEntry, iter_unfinished, new_sweep
from loramill.jobs.sweep_search import close_sweep, require_best, run_search, view_of
from loramill.settings import Settings
from loramill.sweeps.halving import Halving
from loramill.sweeps.search import Search
from loramill.sweeps.space import MAX_TRIALS, Sampler

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
        int | None, typer.Option(min=1, max=MAX_TRIALS, help="How many trials; all of a grid if absent.")
    ] = None,
    sampler: Annotated[Sampler | None, typer.Option(help="How trials are chosen; grid or random by itself.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Trials that tpe asks for at a time.")] = 8,
    halving: Annotated[
        bool, typer.Option("--halving", help="Stop the worse trials early (successive halving).")
    ] = False,
    keep: Annotated[int, typer.Option(min=2, help="With --halving: one trial in so many goes on.")] = Halving.keep,
    rungs: Annotated[int, typer.Option(min=1, help="With --halving: how often trials are compared.")] = Halving.rungs,
    resume: Annotated[str | None, typer.Option(metavar="ID", help="Go on with an interrupted sweep.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Train many trials on one base, side by side, and find the best."""
    settings = Settings.load()
    console = Console(stderr=True)
    if resume:
        swept = Sweep.load(settings, resume)
    else:
        config = read_config(context, config_file, assignments)
        search = Search(tuple(grid or []), sampler, trials, batch, config.training.seed)
        search.check()
        swept = new_sweep(config, halving=Halving(keep, rungs) if halving else None, search=search)
    try:
        was_stopped = _train(swept, settings, console, resume=resume is not None)
    except LoramillError as error:
        if swept.trials:
            if as_json:
                _print_json(swept, settings, error={"code": error.code, "message": error.message, "fix": error.fix})
            _print_how_to_go_on(swept, "error", console)
        raise
    _report(swept, settings, as_json=as_json)
    if not list(iter_unfinished(swept)):
        require_best(swept)
        return
    _print_how_to_go_on(swept, "stopped" if was_stopped else "time_limit", console)
    if was_stopped:
        raise typer.Exit(STOPPED_BY_USER)


def _train(swept: Sweep, settings: Settings, console: Console, *, resume: bool) -> bool:
    """Run the search to its end; whether a person ended it before."""
    with open_database(settings) as database:
        with stop_on_signals() as should_stop, SweepLines(console) as progress:
            runner = SweepRunner(
                swept, settings=settings, database=database, on_event=progress.show, should_stop=should_stop
            )
            run_search(runner, resume=resume)
        close_sweep(swept, settings=settings, database=database, by=local_name())
    return should_stop()


def _print_how_to_go_on(swept: Sweep, reason: str, console: Console) -> None:
    hint = f"Stopped ({reason}). Go on with: loramill sweep --resume {swept.sweep_id}"
    console.print(escape(hint), highlight=False, soft_wrap=True)


def _report(swept: Sweep, settings: Settings, *, as_json: bool) -> None:
    """Say how every trial ended."""
    if as_json:
        _print_json(swept, settings)
    else:
        print_people(_table(view_of(swept, settings)))
        if swept.registered:
            print_people(f"{swept.registered} is in staging: loramill predict {swept.registered} TEXT")
        print_people(f"Plots: {swept.folder(settings) / REPORT_FILE}")


def _print_json(sweep: Sweep, settings: Settings, **more: object) -> None:
    document = {
        "sweep_id": sweep.sweep_id,
        "best": sweep.best.experiment_id if sweep.best else None,
        "trials": [_trial(sweep, entry, settings) for entry in sweep.kept],
        **more,
    }
    typer.echo(json.dumps(document, ensure_ascii=False))


def _trial(swept: Sweep, entry: TrialEntry, settings: Settings) -> dict[str, Any]:
    folder = swept.trial_folder(settings, entry)
    return {
        "experiment_id": entry.experiment_id,
        "folder": str(folder.path),
        "overrides": entry.overrides,
        "config": recorded_config(folder).model_dump(mode="json"),
        "metrics": folder.read_metrics(),
        "status": entry.status,
    }


def _table(view: SweepView) -> Table:
    """Trials, best first; those that were stopped early come after those that ran to their end."""
    table = Table(title=f"Sweep {view.sweep_id}", title_justify="left")
    table.add_column("trial", no_wrap=True)
    for name in (*view.keys, view.metric, "status"):
        table.add_column(name, overflow="fold")
    for trial in view.ranked():
        values = [_shown(trial.overrides.get(key)) for key in view.keys]
        value = f"{trial.value:.4f}" if trial.value is not None else ""
        best = "bold green" if trial.folder.id == view.best else None
        table.add_row(trial.folder.id, *values, value, trial.status, style=best)
    return table


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
