from __future__ import annotations

import contextlib
import importlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from loramill.cli import machine_checks
from loramill.cli.doctor import app
from loramill.cli.machine_checks import check_database, check_disk, check_extras, check_home, check_hub, check_torch
from loramill.database import Database
from loramill.settings import Settings


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub on the loopback, which refuses, as hubs do without a token; that is an answer too."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield endpoint
    server.shutdown()
    server.server_close()


def test_doctor_prints_one_json_document(home: Path) -> None:
    result = CliRunner().invoke(app, ["--offline", "--json"], catch_exceptions=False)
    report = json.loads(result.stdout)
    assert report["can_train"] is (result.exit_code == 0)
    names = [check["name"] for check in report["checks"]]
    assert {"Python", "torch", "memory", "disk", "home", "database", "sample:movie_reviews", "hub"} <= set(names)
    assert all(set(check) == {"name", "status", "found", "fix"} for check in report["checks"])
    assert not list(home.iterdir()), "looking must not leave anything behind"


def test_doctor_prints_a_table_and_says_what_it_means(home: Path) -> None:
    result = CliRunner().invoke(app, ["--offline"], env={"COLUMNS": "140"}, catch_exceptions=False)
    assert "torch" in result.stdout
    assert "This machine can" in result.stdout.splitlines()[-1]


def test_without_torch_nothing_can_be_trained(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "torch":
            raise machine_checks.metadata.PackageNotFoundError(name)
        return importlib.metadata.version(name)

    monkeypatch.setattr(machine_checks, "metadata", _Metadata(version))
    result = CliRunner().invoke(app, ["--offline"], env={"COLUMNS": "140"}, catch_exceptions=False)
    assert result.exit_code == 1
    assert "This machine cannot train yet" in result.stdout


class _Metadata:
    """importlib.metadata with another answer to "which version"."""

    PackageNotFoundError = importlib.metadata.PackageNotFoundError
    requires = staticmethod(importlib.metadata.requires)

    def __init__(self, version: object) -> None:
        self.version = version


def test_a_torch_that_does_not_load_is_told_from_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "loramill.training.device", None)
    check = check_torch()
    assert check.status == "failed"
    assert "cannot be loaded" in check.found


def test_torch_is_found_with_its_build_and_device() -> None:
    check = check_torch()
    assert check.status == "ok"
    assert check.found.startswith("2.")
    assert "Computing on" in check.found


def test_extras_name_what_is_missing() -> None:
    checks = {check.name: check for check in check_extras()}
    assert checks["extra train"].status == "ok"
    for check in checks.values():
        assert (check.status == "ok") == (check.found == "installed")
        if check.status == "missing":
            assert check.fix.startswith("pip install ")


def test_a_home_that_cannot_be_made_stops_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_home(tmp_path / "new").status == "ok"
    monkeypatch.setattr(machine_checks.os, "access", lambda *_: False)
    check = check_home(tmp_path / "new")
    assert check.status == "failed"
    assert "LORAMILL_HOME" in check.fix


def test_a_disk_that_is_nearly_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk(tmp_path).status == "ok"
    monkeypatch.setattr(machine_checks, "SCARCE_DISK", 2**62)
    assert check_disk(tmp_path).status == "missing"


def test_a_database_that_is_not_there_yet_is_not_made(home: Path) -> None:
    check = check_database(Settings.load())
    assert (check.status, check.found) == ("ok", "SQLite; the first run makes it")
    assert not list(home.iterdir())


def test_the_migration_of_a_database_is_shown(home: Path, empty_database_url: str) -> None:
    settings = Settings(DATABASE_URL=empty_database_url)  # type: ignore[call-arg]
    with contextlib.closing(Database(empty_database_url)) as database:
        database.upgrade()
        name, revision = database.engine.dialect.name, database.revision()
        assert check_database(settings).found == f"{name} at migration {revision}"
        database.migrate("base")
    check = check_database(settings)
    assert check.found == f"{name} at migration none, newest is {revision}"
    assert check.status == "ok"


@pytest.mark.parametrize(
    "url",
    ["postgresql://ann:s3cret@127.0.0.1:1/runs", "oracle://ann:s3cret@db/runs", "no url at all"],
)
def test_a_database_that_does_not_answer_stops_training_and_keeps_its_secret(home: Path, url: str) -> None:
    check = check_database(Settings(DATABASE_URL=url))  # type: ignore[call-arg]
    assert check.status == "failed"
    assert "s3cret" not in check.found


def test_a_file_that_is_no_database_stops_training(home: Path) -> None:
    (home / "notes.db").write_text("this is not a database, whatever its name says" * 100)
    check = check_database(Settings(DATABASE_URL=f"sqlite:///{home / 'notes.db'}"))  # type: ignore[call-arg]
    assert check.status == "failed"


def test_a_hub_that_answers_is_there_even_if_it_refuses(hub: str) -> None:
    assert check_hub().found == "answers"


def test_a_hub_that_does_not_answer_is_missing(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    check = check_hub()
    assert check.status == "missing"
    assert "does not answer" in check.found
    assert check_hub(ask=False).found == "not asked"


def test_offline_is_a_choice(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert check_hub().found == "switched off by HF_HUB_OFFLINE"
