"""``loramill audit``: what was done and refused, and whether the record of it is whole."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from loramill.auth.audit_chain import AuditEntry
from loramill.auth.audit_log import MAX_QUERY_ROWS, AuditLog
from loramill.cli.local import open_database
from loramill.cli.moments import Since, Until
from loramill.cli.output import AsJson, print_json
from loramill.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Show and verify the audit log.")


@app.command()
def show(
    user: Annotated[str | None, typer.Option(help="Id of a user, such as u1.")] = None,
    role: Annotated[str | None, typer.Option(help="user or admin.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_QUERY_ROWS)] = 50,
    as_json: AsJson = False,
) -> None:
    """Show what was done and refused, newest first."""
    settings = Settings.load()
    with open_database(settings) as database:
        entries = AuditLog.from_settings(settings, database).query(
            user_id=user,
            role=role,
            start_time=since.timestamp() if since else None,
            end_time=until.timestamp() if until else None,
            limit=limit,
        )
    if as_json:
        print_json({"entries": [entry.as_dict() for entry in entries]})
    else:
        _console().print(_table(entries))


@app.command()
def verify(as_json: AsJson = False) -> None:
    """Look for edited, deleted, moved and cut-off rows. Exit code 1 when there are any."""
    settings = Settings.load()
    with open_database(settings) as database:
        report = AuditLog.from_settings(settings, database).verify()
    if as_json:
        print_json(report.as_dict())
    elif report.intact:
        typer.echo(f"intact: {report.rows} row{'s'[: report.rows != 1]}, anchored up to row {report.anchored}")
    else:
        table = Table("row", "finding", "meaning")
        for finding in report.findings:
            table.add_row(str(finding.row), finding.code, finding.message)
        _console().print(table)
    if not report.intact:
        raise typer.Exit(1)


def _console() -> Console:
    """Prints what it is given: a target may hold square brackets or colons that rich would read as its own."""
    return Console(markup=False, emoji=False, highlight=False)


def _table(entries: list[AuditEntry]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("row", "time"):
        table.add_column(heading, no_wrap=True)
    for heading in ("who", "action", "result", "target", "from"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        time = f"{datetime.fromtimestamp(entry.time / 1e6).astimezone():%Y-%m-%d %H:%M}"
        who = entry.user_id or "nobody"
        table.add_row(str(entry.sequence), time, who, entry.action, entry.result, entry.target, entry.address)
    return table
