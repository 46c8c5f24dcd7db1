"""``loramill db``: the database itself."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from loramill.database import Database
from loramill.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Upgrade or back up the database.")

BackupFile = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="Where to; results/backups/<time> if not given.")
]


@app.command()
def upgrade() -> None:
    """Bring the tables to the newest migration; other commands do it by themselves."""
    database = Database(Settings.load().effective_database_url)
    before = database.revision()
    database.upgrade()
    typer.echo(f"Migration {database.revision()}" + (" (was there already)" if before == database.revision() else ""))
    database.close()


@app.command()
def backup(file: BackupFile = None) -> None:
    """Copy the database to a file while others go on working."""
    settings = Settings.load()
    database = Database(settings.effective_database_url)
    target = file or settings.results_folder / "backups" / f"{datetime.now():%Y%m%d_%H%M%S}.{_suffix(database)}"
    database.backup(target)
    database.close()
    typer.echo(target)


def _suffix(database: Database) -> str:
    return "db" if database.engine.dialect.name == "sqlite" else "dump"
