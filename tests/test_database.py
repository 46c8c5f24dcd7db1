from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

import loramill.auth.models
import loramill.data.datasets
import loramill.experiments.models
import loramill.jobs.job_tables
from loramill.database import MIGRATIONS, Base, Database, newest_revision
from loramill.errors import ConfigError, DatabaseUnavailableError, LoramillError, NotFoundError, StorageError
from postgres_server import PostgresServer


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names())


def test_migrations_go_up_down_and_up_again(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade()
    first = tables(database)
    assert {"experiment", "metric", "tag"} <= first
    database.migrate("base")
    assert tables(database) == {"alembic_version"}
    database.upgrade()
    assert tables(database) == first
    database.close()


def test_every_single_step_goes_down_and_up(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade()
    steps = [script.revision for script in revisions().walk_revisions()][::-1]
    for lower, upper in zip(["base", *steps], steps, strict=False):
        database.migrate(lower)
        database.migrate(upper)
        assert database.revision() == upper
    database.close()


def test_migrations_make_the_tables_that_the_code_maps(database: Database) -> None:
    assert loramill.experiments.models.Experiment.__table__.metadata is Base.metadata
    mapped = {name for name in Base.metadata.tables if name in tables(database)}
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"compare_type": True, "include_name": lambda name, kind, _: kind != "table" or name in mapped},
        )
        assert compare_metadata(context, Base.metadata) == []


def test_the_newest_revision_is_read_from_the_file_names() -> None:
    assert newest_revision() == revisions().get_current_head()


def revisions() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def test_a_database_of_a_newer_loramill_is_refused(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade()
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StorageError, match="9999"):
        database.upgrade()
    database.close()


def test_two_processes_may_migrate_at_once(empty_database_url: str) -> None:
    script = f"from loramill.database import Database as D; d = D({empty_database_url!r}); d.upgrade(); d.close()"
    runs = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", script], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [(run.wait(), run.communicate()[1]) for run in runs] == [(0, "")] * 3


def test_a_transaction_commits_whole_or_not_at_all(database: Database) -> None:
    insert = text("INSERT INTO model_alias (name, experiment_number) SELECT 'a', number FROM experiment WHERE 1 = 0")
    with database.transaction() as session:
        session.execute(text("CREATE TABLE note (line TEXT)"))
        session.execute(insert)
    with pytest.raises(ZeroDivisionError), database.transaction() as session:
        session.execute(text("INSERT INTO note VALUES ('lost')"))
        raise ZeroDivisionError
    with database.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM note")) == 0


def test_a_reader_waits_for_no_writer(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE note (line TEXT)"))
    with database.transaction() as writer, database.reading() as reader:
        writer.execute(text("INSERT INTO note VALUES ('new')"))
        assert reader.scalar(text("SELECT count(*) FROM note")) == 0


def test_sqlite_writers_wait_for_each_other(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with database.transaction() as session:
        session.execute(text("CREATE TABLE counter (value INTEGER)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))

    def count_up() -> None:
        for _ in range(50):
            with database.transaction() as session:
                value = session.scalar(text("SELECT value FROM counter"))
                session.execute(text("UPDATE counter SET value = :value"), {"value": value + 1})

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert session.scalar(text("SELECT value FROM counter")) == 200
    database.close()


def test_sqlite_survives_power_loss_and_checks_foreign_keys(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with database.reading() as session:
        pragmas = [session.scalar(text(f"PRAGMA {p}")) for p in ("journal_mode", "synchronous", "foreign_keys")]
    assert pragmas == ["wal", 2, 1]
    database.close()


def test_a_backup_holds_what_was_committed(
    database: Database, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.engine.dialect.name == "postgresql":
        programs = request.getfixturevalue("postgres_server").programs  # a pg_dump must be as new as its server
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with database.transaction() as session:
        session.execute(text("CREATE TABLE note (line TEXT)"))
        session.execute(text("INSERT INTO note VALUES ('kept')"))
    target = tmp_path / "backups" / "copy"
    database.backup(target)
    if database.engine.dialect.name == "sqlite":
        with contextlib.closing(sqlite3.connect(target)) as copy:
            assert copy.execute("SELECT line FROM note").fetchall() == [("kept",)]
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    else:
        assert target.read_bytes().startswith(b"PGDMP")
    assert [path.name for path in target.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize("url", ["no url", "oracle://ann:s3cret@db/runs", "postgresql://ann:s3cret@db:port/runs"])
def test_a_url_that_is_none_is_named_without_its_secret(url: str) -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL: must be") as caught:
        Database(url)
    assert "s3cret" not in str(caught.value)


def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    database = Database("postgresql://ann:s3cret@127.0.0.1:1/runs")
    with pytest.raises(DatabaseUnavailableError, match=r"127\.0\.0\.1/runs does not answer: .*refused") as caught:
        database.upgrade()
    assert isinstance(caught.value, SQLAlchemyError)  # for those who wait until it is back
    assert "s3cret" not in str(caught.value)
    assert "DATABASE_URL" in caught.value.fix


def test_a_connection_that_breaks_is_named(postgres_server: PostgresServer) -> None:
    database = Database(postgres_server.create("breaks"))
    with pytest.raises(DatabaseUnavailableError, match="does not answer"), database.transaction() as session:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with database.reading() as session:
        assert session.scalar(text("SELECT 1")) == 1
    database.close()


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(NotFoundError, match="psycopg") as caught:
        Database("postgresql://u@h/d")
    assert "loramill[postgres]" in caught.value.fix


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    file.write_text("not a database " * 100)
    with pytest.raises(DatabaseUnavailableError, match=r"notes\.db cannot be used: file is not a database") as caught:
        Database(f"sqlite:///{file}").upgrade()
    assert "reindex" in caught.value.fix


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match="unable to open"):
        Database(f"sqlite:///{tmp_path}").upgrade()


def test_a_backup_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    proc = Path("/proc/self")  # nobody makes files there, not even root
    if not proc.exists():
        pytest.skip("no /proc here")
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(NotFoundError, match="no database"):
        database.backup(tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []
    database.upgrade()
    with pytest.raises(DatabaseUnavailableError, match="cannot be copied to /proc/self"):
        database.backup(proc / "backup")
    database.close()


def test_a_backup_in_place_of_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database = Database("sqlite:///a.db")
    database.upgrade()
    for folder in (Path(), tmp_path):
        with pytest.raises(StorageError, match="is a folder"):
            database.backup(folder)
    assert [file.name for file in tmp_path.iterdir() if "part" in file.name] == []
    database.close()


def test_an_error_of_a_statement_stays_what_it_is(database: Database) -> None:
    with pytest.raises(DBAPIError) as caught, database.transaction() as session:
        session.execute(text("SELECT nothing FROM nowhere"))
    assert not isinstance(caught.value, LoramillError)


def test_plain_postgresql_urls_mean_psycopg() -> None:
    for url in ("postgres://u:p@h/d", "postgresql://u:p@h/d"):
        assert Database(url).engine.dialect.driver == "psycopg"
    assert create_engine(Database("postgresql+psycopg://u@h/d").url).dialect.driver == "psycopg"
