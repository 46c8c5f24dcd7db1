"""What goes wrong with the database itself, named: away, no database, full, not to be written, or never told where.

Errors of single statements, such as a broken constraint, stay as SQLAlchemy raises them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from loramill.errors import ConfigError, DatabaseUnavailableError, NotFoundError, Problem
from loramill.redaction import redact

RESTORE = (
    "Restore it from a backup, or move it away: a new one is made, and `loramill experiments reindex` brings back "
    "the experiments from their folders."
)
PERMISSIONS = "Change the permissions of the file and its folder, or choose another folder with LORAMILL_HOME."
SQLITE_FIXES = {
    sqlite3.SQLITE_NOTADB: RESTORE,
    sqlite3.SQLITE_CORRUPT: RESTORE,
    sqlite3.SQLITE_CANTOPEN: PERMISSIONS,
    sqlite3.SQLITE_PERM: PERMISSIONS,
    sqlite3.SQLITE_READONLY: PERMISSIONS,
    sqlite3.SQLITE_FULL: "Free space on its disk.",
    sqlite3.SQLITE_IOERR: "Look at its disk; is it full, or away?",
    sqlite3.SQLITE_BUSY: "Another process holds it. Try again, or end that process.",
}
"""Primary result codes (sqlite.org/rescode.html) for which no statement is to blame."""

SERVER_FIX = "Start the server, or correct DATABASE_URL."


class DatabaseAwayError(DatabaseUnavailableError, SQLAlchemyError):  # type: ignore[misc]  # both have a code
    """For those who wait until the database is back, too: they catch whatever SQLAlchemy raises."""


def parse_url(url: str) -> URL:
    """
    Raises:
        ConfigError: it is no URL of SQLite or PostgreSQL. Names the variable, not the value, which may be a secret.
    """
    try:
        parsed = make_url(url)
        known = parsed.get_backend_name() in ("sqlite", "postgresql")
    except (ArgumentError, ValueError):
        known = False
    if not known:
        message = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"
        raise ConfigError([Problem("DATABASE_URL", None, message)], source="settings")
    return parsed


@contextlib.contextmanager
def named_driver_errors() -> Iterator[None]:
    """
    Raises:
        NotFoundError: the driver of the database is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise NotFoundError(
            f"The driver of this database cannot be imported: {error}.", fix="pip install 'loramill[postgres]'"
        ) from error


@contextlib.contextmanager
def named_copy_errors(path: Path) -> Iterator[None]:
    """
    Raises:
        DatabaseUnavailableError: SQLite cannot read the database, or cannot write its copy at ``path``.
    """
    try:
        yield
    except sqlite3.Error as error:
        fix = SQLITE_FIXES.get(_code_of(error), "")
        raise DatabaseUnavailableError(f"The database cannot be copied to {path}: {error}.", fix=fix) from error


def name_errors(engine: Engine) -> None:
    """Have an engine raise ``DatabaseAwayError`` for what no statement is to blame for."""
    url = engine.url
    place = f"{url.host}/{url.database}" if url.host else str(url.database)

    def raise_named(context: ExceptionContext) -> None:
        if context.is_pre_ping:  # the pool connects anew
            return
        error = context.original_exception
        reason = redact(str(error)).partition("\n")[0].rstrip(".")
        if isinstance(error, sqlite3.Error):
            if fix := SQLITE_FIXES.get(_code_of(error)):
                raise DatabaseAwayError(f"The database {place} cannot be used: {reason}.", fix=fix) from error
        elif context.connection is None or context.is_disconnect:
            raise DatabaseAwayError(f"The database {place} does not answer: {reason}.", fix=SERVER_FIX) from error

    event.listen(engine, "handle_error", raise_named)


def _code_of(error: sqlite3.Error) -> int:
    """The primary result code, which is the low byte of the extended one."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
