"""Databases for the tests: SQLite files, and a real PostgreSQL that the tests start and stop by themselves."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from sqlalchemy import inspect, text

from loramill.database import Database
from postgres_server import PostgresServer, running_postgres

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: a second thread would only wait, and exactness needs one
settings.register_profile("no deadline", deadline=None)  # a busy machine is no defect
settings.load_profile("no deadline")
DATABASE_NUMBERS = itertools.count(1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: several run at once, and what is begun last should not take long."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running_postgres("fsync=off", "full_page_writes=off") as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> tuple[str, list[str]]:
    """URL and tables of the database that tests share: hundreds of databases would be slow to make and to remove."""
    url = postgres_server.create("migrated")
    database = Database(url)
    database.upgrade()
    tables = inspect(database.engine).get_table_names()
    database.close()
    return url, tables


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that tests copy, since copying one is faster than migrating one."""
    file = tmp_path_factory.mktemp("migrated") / "experiments.db"
    database = Database(f"sqlite:///{file}")
    database.upgrade()
    database.close()
    return file


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
        file = shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "experiments.db")
        database = Database(f"sqlite:///{file}")
    else:
        url, tables = request.getfixturevalue("migrated_postgres")
        database = Database(url)
        _make_empty(database, tables)
    yield database
    database.close()


def _make_empty(database: Database, tables: list[str]) -> None:
    """Without rows, and without the tables that a test added."""
    strangers = set(inspect(database.engine).get_table_names()) - set(tables)
    ours = ", ".join(name for name in tables if name != "alembic_version")
    with database.transaction() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))  # past the guards of the audit log
        session.execute(text("SET LOCAL lock_timeout = '10s'"))  # a test that left a transaction open is to blame
        for name in strangers:
            session.execute(text(f"DROP TABLE {name}"))
        session.execute(text(f"TRUNCATE {ours} RESTART IDENTITY CASCADE"))
