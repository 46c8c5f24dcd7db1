"""The database: one engine, one way to open a transaction, migrations.

SQLite by default (WAL, so that readers never wait for the writer), PostgreSQL by ``DATABASE_URL``.
Transactions open at the edge (routes, jobs, commands) with ``Database.transaction``; stores take the
session, and never commit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

BUSY_TIMEOUT_MS = 30_000


class Base(DeclarativeBase):
    """Declarative base of every table."""


class Database:
    """An engine and its sessions.

    Args:
        url: SQLAlchemy URL, such as ``sqlite:///results/experiments.db`` or ``postgresql+psycopg://...``.
    """

    def __init__(self, url: str) -> None:
        self.url = _with_driver(url)
        self.engine = _create_engine(self.url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end, and rolls back on any error.

        On SQLite it takes the write lock at the start (``BEGIN IMMEDIATE``): two writers wait for each other
        instead of failing half-way with "database is locked".
        """
        with self._sessions.begin() as session:
            yield session

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for reading only; on SQLite it takes no write lock."""
        with self._sessions(bind=self.engine.execution_options(loramill_reading=True)) as session:
            yield session

    def upgrade(self) -> None:
        """Bring the tables to the newest migration; does nothing when they are there."""
        from alembic import command  # imported here: alembic costs 50 ms, and most commands find a current database

        command.upgrade(migration_config(self.url), "head")

    def close(self) -> None:
        self.engine.dispose()


def migration_config(url: str) -> Any:
    """Alembic's configuration for the migrations inside the package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def _with_driver(url: str) -> str:
    """``postgres://`` and ``postgresql://`` mean psycopg 3 here."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return f"postgresql+psycopg://{url.removeprefix(scheme)}"
    return url


def _create_engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not open transactions behind SQLAlchemy's back
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    reading = connection.get_execution_options().get("loramill_reading", False)
    connection.execute(text("BEGIN DEFERRED" if reading else "BEGIN IMMEDIATE"))
