"""The database: one engine, one way to open a transaction, migrations.

SQLite by default (WAL, so that readers never wait for the writer), PostgreSQL by ``DATABASE_URL``.
Transactions open at the edge (routes, jobs, commands) with ``Database.transaction``; stores take the
session, and never commit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Integer,
    TypeDecorator,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from loramill.database_errors import name_errors, named_copy_errors, named_driver_errors, parse_url
from loramill.errors import NotFoundError, StorageError
from loramill.files import named_storage_errors, sync_file, sync_folder

BUSY_TIMEOUT_MS = 30_000
SQLITE_PRAGMAS = (
    f"busy_timeout={BUSY_TIMEOUT_MS}",
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "cache_size=-32768",  # KiB; the default of 2 MiB reads the same pages again and again in a large record
)
MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 7_264_531
"""Any number, the same in every loramill: PostgreSQL's advisory lock around a migration."""


Number = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up by itself only in a column declared INTEGER."""


class Base(DeclarativeBase):
    """Declarative base of every table."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC on every database (SQLite keeps no zone, PostgreSQL converts to the session's)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """An engine and its sessions.

    Args:
        url: SQLAlchemy URL, such as ``sqlite:///results/experiments.db`` or ``postgresql+psycopg://...``.
        relaxed: SQLite does not wait for the disk: a power failure may take back the last changes, in order. For
            changes that such a failure undoes by itself, such as the claims of workers, which end with the machine.

    Raises:
        ConfigError: the URL is none of SQLite or PostgreSQL.
        NotFoundError: the driver is not installed.
        DatabaseUnavailableError: (everything else here) it is away, full, no database, or may not be written.
    """

    def __init__(self, url: str, *, relaxed: bool = False) -> None:
        self.url = _with_driver(url)
        self.engine = _create_engine(self.url)
        name_errors(self.engine)
        if relaxed and self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _relax_sqlite)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        self._reading = sessionmaker(self.engine.execution_options(loramill_reading=True), expire_on_commit=False)

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
        with self._reading() as session:
            yield session

    def upgrade(self) -> None:
        """Bring the tables to the newest migration; cheap when they are there already.

        Raises:
            StorageError: the database was made by a newer loramill.
        """
        current = self.revision()
        newest = newest_revision()
        if current == newest:
            return
        if current is not None and current > newest:
            raise StorageError(
                f"The database is at migration {current}, and this loramill knows {newest} at most.",
                fix="Upgrade loramill, or point DATABASE_URL at another database.",
            )
        self.migrate("head")

    def revision(self) -> str | None:
        """The migration that the database is at; ``None`` when it has no tables of ours."""
        with self.reading() as session:
            return _current_revision(session.connection())

    def migrate(self, revision: str) -> None:
        """Go up or down to a migration (``head``, ``base`` or an id) in one transaction, one process at a time."""
        from alembic import command  # imported here: alembic costs 50 ms, and most commands find a current database
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            move = command.downgrade if _goes_down(connection, revision) else command.upgrade
            move(config, revision)

    def backup(self, target: Path) -> None:
        """Write a consistent copy of the database to a file, while others go on writing.

        SQLite gives an SQLite file; PostgreSQL a dump for ``pg_restore``.

        Raises:
            NotFoundError: there is no database yet, or PostgreSQL's ``pg_dump`` is not installed.
            StorageError, DatabaseUnavailableError: the copy could not be made; no half of one is left.
        """
        file = self.engine.url.database
        if self.engine.dialect.name == "sqlite" and not (file and Path(file).is_file()):
            raise NotFoundError(f"There is no database {file} yet.", fix="It comes with the first run.")
        if target.is_dir():
            raise StorageError(f"{target} is a folder.", fix="Name a file in it, such as experiments-backup.db.")
        staged = target.with_name(f".{target.name}.part")
        try:
            with named_storage_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                staged.unlink(missing_ok=True)
                if self.engine.dialect.name == "sqlite":
                    self._copy_sqlite(staged)
                else:
                    self._dump_postgresql(staged)
                sync_file(staged)
                staged.replace(target)
                sync_folder(target.parent)
        finally:
            staged.unlink(missing_ok=True)

    def close(self) -> None:
        self.engine.dispose()

    def _copy_sqlite(self, target: Path) -> None:
        with self.engine.connect() as connection, named_copy_errors(target):
            source = connection.connection.driver_connection
            with contextlib.closing(sqlite3.connect(target)) as copy:
                source.backup(copy)  # type: ignore[union-attr]

    def _dump_postgresql(self, target: Path) -> None:
        program = shutil.which("pg_dump")
        if program is None:
            raise NotFoundError("pg_dump is not installed.", fix="Install PostgreSQL's client programs.")
        url = make_url(self.url).set(drivername="postgresql")
        environment = {**os.environ, "PGPASSWORD": url.password or ""}
        dsn = url.set(password=None).render_as_string()
        command = [program, "--format=custom", f"--file={target}", f"--dbname={dsn}"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        if result.returncode != 0:
            fix = "Start the server, correct DATABASE_URL, or install a pg_dump that is as new as the server."
            raise StorageError(f"pg_dump failed: {result.stderr.strip()}", fix=fix)


def take_turns(session: Session, key: int) -> None:
    """Hold a lock until the transaction ends: who names the same number waits.

    On SQLite nobody else writes anyway while a transaction is open.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def newest_revision() -> str:
    """Id of the newest migration: the file names begin with it, and ids count up, so no import is needed."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _goes_down(connection: Connection, revision: str) -> bool:
    if revision in ("base", "head"):
        return revision == "base"
    return revision < (_current_revision(connection) or "")


def _current_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return version


def _with_driver(url: str) -> str:
    """``postgres://`` and ``postgresql://`` mean psycopg 3 here."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return f"postgresql+psycopg://{url.removeprefix(scheme)}"
    return url


def _create_engine(url: str) -> Engine:
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        with named_driver_errors():
            return create_engine(parsed, pool_pre_ping=True)
    if parsed.database:
        folder = Path(parsed.database).parent
        with named_storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not open transactions behind SQLAlchemy's back
    for pragma in SQLITE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _relax_sqlite(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_sqlite(connection: Any) -> None:
    reading = connection.get_execution_options().get("loramill_reading", False)
    connection.exec_driver_sql("BEGIN DEFERRED" if reading else "BEGIN IMMEDIATE")
