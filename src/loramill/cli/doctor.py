"""``loramill doctor``: what this machine can do, and what is missing."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loramill.cli.machine_checks import Check, check_machine
from loramill.cli.output import AsJson, print_json
from loramill.settings import Settings

MARKS = {"ok": "[green]ok[/]", "missing": "[yellow]missing[/]", "failed": "[red]failed[/]"}

app = typer.Typer()


@app.command()
def doctor(
    as_json: AsJson = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask whether the hub answers.")] = False,
) -> None:
    """Check Python, torch, devices, disk, samples, extras, database and hub; exit code 1 if nothing can be trained."""
    checks = check_machine(Settings.load(), ask_hub=not offline)
    can_train = all(check.status != "failed" for check in checks)
    if as_json:
        print_json({"can_train": can_train, "checks": [check.as_dict() for check in checks]})
    else:
        Console().print(_table(checks))
        typer.echo("This machine can train." if can_train else "This machine cannot train yet: see what failed.")
    if not can_train:
        raise typer.Exit(1)


def _table(checks: list[Check]) -> Table:
    table = Table("check", "", "found", "what to do", title="loramill doctor", title_justify="left")
    for check in checks:
        table.add_row(check.name, MARKS[check.status], escape(check.found), escape(check.fix))
    return table
