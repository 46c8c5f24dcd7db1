"""Databases for the tests: SQLite files, and a real PostgreSQL that the tests start and stop by themselves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from loramill.database import Database
from postgres_server import PostgresServer, running_postgres

DATABASE_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running_postgres("fsync=off", "full_page_writes=off") as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> str:
    """Name of a migrated database that tests copy, since copying one is faster than migrating one."""
    database = Database(postgres_server.create("migrated"))
    database.upgrade()
    database.close()
    return "migrated"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database; the test runs once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create(f"empty_{next(DATABASE_NUMBERS)}")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated database without rows; the test runs once on each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'experiments.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.create(f"test_{next(DATABASE_NUMBERS)}", request.getfixturevalue("migrated_postgres"))
    database = Database(url)
    database.upgrade()
    yield database
    database.close()
