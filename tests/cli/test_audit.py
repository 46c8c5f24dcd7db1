from __future__ import annotations

import itertools
import json
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from loramill.auth.audit_log import Actor, AuditLog
from loramill.cli.audit import app
from loramill.database import Database
from loramill.errors import PermissionDeniedError
from loramill.settings import Settings


def run(*arguments: str, code: int = 0, columns: int = 200) -> str:
    result = CliRunner().invoke(app, [*arguments], catch_exceptions=False, env={"COLUMNS": str(columns)})
    assert result.exit_code == code, result.output
    return result.stdout


def shown(*arguments: str) -> list[int]:
    return [entry["sequence"] for entry in json.loads(run("show", "--json", *arguments))["entries"]]


@pytest.fixture
def audit(home_database: Database) -> AuditLog:
    """Three rows: by an administrator, by a user, and a refusal."""
    log = AuditLog.from_settings(Settings.load(), home_database)
    with log.transaction(Actor("u1", "admin", "192.0.2.1"), "user.disable", "u3"):
        pass
    with log.transaction(Actor("u2", "user", "192.0.2.2"), "job.submit", "u2_[bold]run[/bold] :smile:"):
        pass
    log.record_refusal(Actor("u2", "user", "192.0.2.2"), "job.cancel", "u3_run", PermissionDeniedError("No."))
    return log


def test_rows_are_shown_newest_first_and_filtered(audit: AuditLog) -> None:
    assert shown() == [3, 2, 1]
    assert shown("--user", "u2") == [3, 2]
    assert shown("--role", "admin") == [1]
    assert shown("--limit", "1") == [3]
    assert shown("--since", "2999-01-01") == []
    assert shown("--until", "2999-01-01T00:00:00") == [3, 2, 1]
    today = datetime.now().date()
    assert shown("--until", today.isoformat()) == [3, 2, 1]  # with its whole day
    assert shown("--until", (today - timedelta(days=1)).isoformat()) == []
    (entry,) = json.loads(run("show", "--json", "--role", "admin"))["entries"]
    assert abs(entry.pop("time") - time.time()) < 60
    assert entry == {
        "sequence": 1,
        "user_id": "u1",
        "role": "admin",
        "action": "user.disable",
        "target": "u3",
        "result": "ok",
        "address": "192.0.2.1",
    }


def test_a_table_shows_a_target_as_it_is(audit: AuditLog) -> None:
    table = run("show")
    assert "u2_[bold]run[/bold] :smile:" in table
    assert "permission_denied" in table
    assert "192.0.2.1" in table


def test_a_narrow_terminal_loses_nothing(audit: AuditLog) -> None:
    row = (
        "environment",
        "user.set_role.user, user.disable",
        "ok",
        "u1_a_long_name_20260131_180000",
        "2001:db8::8a2e:370:7334",
    )
    with audit.transaction(Actor(row[0], None, row[4]), row[1], row[3]):
        pass
    lines = run("show", "--limit", "1", columns=80).splitlines()
    heading = next(line for line in lines if " from" in line)
    edges = [heading.index(name) for name in ("who", "action", "result", "target", "from")] + [80]
    assert tuple(
        "".join(line[start:end].strip() for line in lines[3:]) for start, end in itertools.pairwise(edges)
    ) == tuple(text.replace(", ", ",") for text in row)


def test_an_intact_log_is_said_to_be_so(audit: AuditLog) -> None:
    assert run("verify") == "intact: 3 rows, anchored up to row 3\n"
    assert json.loads(run("verify", "--json")) == {"intact": True, "rows": 3, "anchored": 3, "findings": []}


def test_an_edited_row_is_named_and_fails_the_command(audit: AuditLog, home_database: Database) -> None:
    with home_database.transaction() as session:
        session.execute(text("DROP TRIGGER audit_log_no_update"))
        session.execute(text("UPDATE audit_log SET user_id = 'u9' WHERE sequence = 2"))
    assert "row_altered" in run("verify", code=1)
    (finding,) = json.loads(run("verify", "--json", code=1))["findings"]
    assert (finding["row"], finding["code"]) == (2, "row_altered")


def test_a_cut_off_tail_is_found_although_the_table_looks_whole(audit: AuditLog, home_database: Database) -> None:
    with home_database.transaction() as session:
        session.execute(text("DROP TRIGGER audit_log_no_delete"))
        session.execute(text("DELETE FROM audit_log WHERE sequence > 1"))
    assert "Rows 2 to 3 are missing." in run("verify", code=1)


def test_a_lost_anchor_file_is_a_finding(audit: AuditLog, home: Path) -> None:
    (home / "results" / "audit.anchor").unlink()
    assert "anchor_missing" in run("verify", code=1)


def test_a_new_home_has_an_empty_log(home: Path) -> None:
    assert shown() == []
    assert run("verify") == "intact: 0 rows, anchored up to row 0\n"
