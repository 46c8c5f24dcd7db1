from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from loramill.auth.audit_chain import AnchorFile, AuditEntry
from loramill.auth.audit_log import Actor, AuditLog
from loramill.auth.models import Role, User
from loramill.auth.users import UserStore
from loramill.database import Database
from loramill.errors import ConfigError, ConflictError, NotFoundError, PermissionDeniedError
from loramill.settings import Settings

ADA = Actor("u1", "user", "192.0.2.1")
ROOT = Actor("u2", "admin", "192.0.2.2")
NOBODY = Actor(None, None, "198.51.100.7")


def write(audit: AuditLog, count: int, actor: Actor = ADA) -> None:
    for number in range(count):
        with audit.transaction(actor, "job.submit", f"job {number}"):
            pass


def shown(audit: AuditLog) -> list[tuple[str | None, str, str, str]]:
    return [(entry.user_id, entry.action, entry.target, entry.result) for entry in audit.query()]


def test_a_change_and_its_row_are_committed_together(audit: AuditLog, add_user: Callable[..., User]) -> None:
    add_user("ada")
    with audit.transaction(ROOT, "user.role", "u1") as session:
        user = UserStore(session).set_role("ada", Role.ADMIN)
    (entry,) = audit.query()
    assert user.role == Role.ADMIN
    assert (entry.sequence, entry.user_id, entry.role, entry.address) == (1, "u2", "admin", "192.0.2.2")
    assert (entry.action, entry.target, entry.result) == ("user.role", "u1", "ok")
    assert abs(entry.time / 1e6 - time.time()) < 60
    assert audit.verify().as_dict() == {"intact": True, "rows": 1, "anchored": 1, "findings": []}


def test_a_refused_change_leaves_nothing_but_the_refusal(audit: AuditLog, add_user: Callable[..., User]) -> None:
    add_user("ada", role=Role.ADMIN)
    with pytest.raises(ConflictError) as caught, audit.transaction(ADA, "user.disable", "u1") as session:
        UserStore(session).create("bob", password_hash="", role=Role.USER)
        UserStore(session).set_disabled("u1", True)
    assert shown(audit) == [("u1", "user.disable", "u1", "conflict")]
    audit.record_refusal(ADA, "POST /users/u1/disable", "u1", caught.value)
    assert len(audit.query()) == 1, "an outer layer does not record it again"
    with audit.transaction(ADA, "user.list", "") as session:
        assert UserStore(session).count() == 1


def test_a_crash_leaves_no_row_and_no_anchor(audit: AuditLog) -> None:
    with pytest.raises(ZeroDivisionError), audit.transaction(ADA, "job.submit", "job"):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), audit.transaction(ADA, "job.submit", "job") as session:
        audit.record(session, ADA, "job.start", "job")
        raise ZeroDivisionError
    assert audit.verify().rows == 0
    write(audit, 1)
    assert audit.verify().intact


def test_no_row_depends_on_a_savepoint(audit: AuditLog) -> None:
    """One that is taken back would leave an anchor without its row."""
    with (
        audit.transaction(ADA, "job.submit", "job") as session,
        session.begin_nested(),
        pytest.raises(RuntimeError, match="savepoint"),
    ):
        audit.record(session, ADA, "job.start", "job")
    assert shown(audit) == [("u1", "job.submit", "job", "ok")]
    assert audit.verify().as_dict() == {"intact": True, "rows": 1, "anchored": 1, "findings": []}


def test_refusals_of_all_kinds_are_recorded_with_their_code(audit: AuditLog) -> None:
    for error in (PermissionDeniedError("No."), NotFoundError("Nothing.")):
        audit.record_refusal(NOBODY, "job.cancel", "u1_job", error)
    assert shown(audit) == [
        (None, "job.cancel", "u1_job", "not_found"),
        (None, "job.cancel", "u1_job", "permission_denied"),
    ]


def test_the_query_filters_by_who_and_when(audit: AuditLog) -> None:
    write(audit, 3, ADA)
    between = time.time()
    time.sleep(0.01)
    write(audit, 2, ROOT)
    audit.record_refusal(NOBODY, "login", "unknown user", PermissionDeniedError("No."))

    def found(**question: object) -> list[int]:
        return [entry.sequence for entry in audit.query(**question)]  # type: ignore[arg-type]

    assert found() == [6, 5, 4, 3, 2, 1]
    assert found(user_id="u1") == [3, 2, 1]
    assert found(role="admin") == [5, 4]
    assert found(start_time=between) == [6, 5, 4]
    assert found(end_time=between) == [3, 2, 1]
    assert found(user_id="u1", role="admin") == []
    assert found(limit=2) == [6, 5]
    assert found(user_id="u") == []
    at = audit.query(limit=1)[0]
    assert at.as_dict() == {
        "sequence": 6,
        "time": at.time / 1e6,
        "user_id": None,
        "role": None,
        "action": "login",
        "target": "unknown user",
        "result": "permission_denied",
        "address": "198.51.100.7",
    }


def test_a_query_out_of_range_names_everything_wrong(audit: AuditLog) -> None:
    with pytest.raises(ConfigError) as caught:
        audit.query(limit=1001, start_time=float("nan"), end_time=float("inf"))
    assert [problem.key for problem in caught.value.problems] == ["start_time", "end_time", "limit"]
    with pytest.raises(ConfigError):
        audit.query(limit=0)
    assert audit.query(limit=1000, start_time=-1.0, end_time=99e9) == []


def test_tokens_and_control_characters_do_not_get_in(audit: AuditLog) -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MSJ9.c2lnbmF0dXJl"
    refresh = "lmr_0123456789abcdef0123456789abcdef_c2VjcmV0LXNlY3JldA"
    actor = Actor("u1\n{", "user", "a" * 500)
    with audit.transaction(
        actor, "x" * 500, f"/task/{token}?refresh={refresh}\r\nfake \x00 row \ud800 \x1b[2J" + "y" * 500
    ):
        pass
    (entry,) = audit.query()
    everything = "".join(str(value) for value in vars(entry).values())
    assert everything.isprintable()
    assert "eyJ" not in everything
    assert "lmr_" not in everything
    assert entry.target.startswith("/task/***?refresh=***")
    assert (len(entry.action), len(entry.target), len(entry.address)) == (64, 255, 64)
    assert audit.verify().intact


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET result = 'ok'",
        "UPDATE audit_log SET target = 'x' WHERE sequence = 2",
        "DELETE FROM audit_log",
        "DELETE FROM audit_log WHERE sequence = 3",
    ],
)
def test_the_database_refuses_changes(statement: str, audit: AuditLog, database: Database) -> None:
    write(audit, 3)
    before = audit.query()
    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(text(statement))
    assert audit.query() == before


def test_the_database_refuses_its_own_ways_around(audit: AuditLog, database: Database) -> None:
    write(audit, 2)
    ways = {
        "sqlite": "INSERT OR REPLACE INTO audit_log SELECT sequence, time, user_id, role, action, 'forged', result,"
        " address, previous, seal FROM audit_log WHERE sequence = 1",
        "postgresql": "TRUNCATE audit_log",
    }
    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(text(ways[database.engine.dialect.name]))
    assert audit.verify().intact


def test_many_writers_keep_one_chain(audit: AuditLog) -> None:
    threads = [threading.Thread(target=write, args=(audit, 15)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = audit.verify()
    assert report.as_dict() == {"intact": True, "rows": 120, "anchored": 120, "findings": []}


APPEND_IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from loramill.auth.audit_chain import AnchorFile
from loramill.auth.audit_log import Actor, AuditLog
from loramill.database import Database

url, anchor = sys.argv[1:]
audit = AuditLog(Database(url), key="sealing key of the tests", anchor=AnchorFile(Path(anchor)))
for number in range(20):
    with audit.transaction(Actor("u1", "user", "192.0.2.1"), "job.submit", f"job {number}"):
        pass
"""


def test_many_processes_keep_one_chain(audit: AuditLog, database: Database, tmp_path: Path) -> None:
    command = [sys.executable, "-c", APPEND_IN_ANOTHER_PROCESS, database.url, str(tmp_path / "audit.anchor")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert audit.verify().as_dict() == {"intact": True, "rows": 60, "anchored": 60, "findings": []}


def test_an_anchor_that_cannot_be_written_does_not_undo_what_is_done(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a folder in its place"
    folder.mkdir()
    audit = AuditLog(database, key="k", anchor=AnchorFile(folder))
    write(audit, 1)
    assert len(audit.query()) == 1
    assert "Audit row 1 is not in the anchor file" in caplog.text


def test_the_anchor_is_beside_the_experiments_unless_told_otherwise(
    settings: Callable[..., Settings], database: Database, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / "log"
    write(AuditLog.from_settings(settings(), database), 1)
    write(AuditLog.from_settings(settings(audit_anchor=elsewhere), database), 1)
    assert (tmp_path / "results" / "audit.anchor").read_text().startswith("1 ")
    assert elsewhere.read_text().startswith("2 ")


class Burglar:
    """Somebody who may write the SQLite file, and takes the triggers away first."""

    def __init__(self, file: Path, seed: int) -> None:
        self.connection = sqlite3.connect(file, isolation_level=None)
        self.connection.execute("PRAGMA synchronous=OFF")
        for name in ("no_update", "no_delete", "no_replace"):
            self.connection.execute(f"DROP TRIGGER audit_log_{name}")
        self.rows = self.connection.execute("SELECT * FROM audit_log ORDER BY sequence").fetchall()
        self.random = random.Random(seed)

    def edit(self) -> int:
        row = self.random.choice(self.rows)
        place, column = self.random.choice([*enumerate(AuditEntry.__dataclass_fields__)][1:])
        values = [0, 1.5, "", "u9", "\u5bc6", b"\x00\xff", "1" * 64, *([None] if column in ("user_id", "role") else [])]
        value = self.random.choice([value for value in values if value != row[place]])
        self.run(f"UPDATE audit_log SET {column} = ? WHERE sequence = ?", value, row[0])
        return int(row[0])

    def delete(self) -> int:
        first = self.random.choice(self.rows)[0]
        self.run("DELETE FROM audit_log WHERE sequence BETWEEN ? AND ?", first, first + self.random.randrange(3))
        return int(first)

    def cut(self) -> int:
        first = self.random.choice(self.rows)[0]
        self.run("DELETE FROM audit_log WHERE sequence >= ?", first)
        return int(first)

    def splice(self) -> int:
        """Put a whole row, seal and all, in the place of another one."""
        source, place = self.random.sample(self.rows, 2)
        self.run("DELETE FROM audit_log WHERE sequence = ?", place[0])
        self.insert((place[0], *source[1:]))
        return int(place[0])

    def close_a_gap(self) -> int:
        """Take a row out and move the later ones up, so that no number is missing."""
        place = self.random.choice(self.rows)[0]
        self.run("DELETE FROM audit_log WHERE sequence >= ?", place)
        for row in self.rows[place:]:
            self.insert((row[0] - 1, *row[1:]))
        return int(place)

    def append(self) -> int:
        """Add a row at the end, linked well, with a seal made without the key."""
        last = self.rows[-1]
        forged = AuditEntry(last[0] + 1, last[1], "u1", "user", "job.delete", "job", "ok", "", previous=last[-1])
        self.insert((*list(vars(forged).values())[:-1], forged.sealed_with(b"a guessed key")))
        return int(last[0]) + 1

    def undo(self) -> None:
        self.run("DELETE FROM audit_log")
        for row in self.rows:
            self.insert(row)

    def insert(self, row: tuple[object, ...]) -> None:
        self.run(f"INSERT INTO audit_log VALUES ({','.join('?' * len(row))})", *row)

    def run(self, statement: str, *values: object) -> None:
        self.connection.execute(statement, values)


def test_a_thousand_burglaries_are_all_found_at_the_right_row(tmp_path: Path) -> None:
    file = tmp_path / "experiments.db"
    database = Database(f"sqlite:///{file}")
    database.upgrade()
    audit = AuditLog(database, key="sealing key", anchor=AnchorFile(tmp_path / "audit.anchor"))
    write(audit, 30)
    burglar = Burglar(file, seed=6)
    ways = [burglar.edit, burglar.delete, burglar.cut, burglar.splice, burglar.close_a_gap, burglar.append]
    with closing(burglar.connection):
        for turn in range(1000):
            expected = ways[turn % len(ways)]()
            report = audit.verify()
            assert min(finding.row for finding in report.findings) == expected, ways[turn % len(ways)].__name__
            burglar.run("BEGIN")
            burglar.undo()
            burglar.run("COMMIT")
            if turn % 100 == 0:
                assert audit.verify().intact
    database.close()


def test_text_that_the_database_cannot_read_is_a_finding(tmp_path: Path) -> None:
    file = tmp_path / "experiments.db"
    database = Database(f"sqlite:///{file}")
    database.upgrade()
    audit = AuditLog(database, key="sealing key", anchor=AnchorFile(tmp_path / "audit.anchor"))
    write(audit, 3)
    with closing(Burglar(file, seed=1).connection) as connection:
        connection.execute("UPDATE audit_log SET target = CAST(x'ff41' AS TEXT) WHERE sequence = 2")
    assert [finding.code for finding in audit.verify().findings] == ["row_unreadable"]
    database.close()


def test_whoever_cuts_the_tail_cannot_write_it_anew(tmp_path: Path) -> None:
    """Rows added by loramill itself after the cut take the numbers of the lost ones; the anchor tells them apart."""
    file = tmp_path / "experiments.db"
    database = Database(f"sqlite:///{file}")
    database.upgrade()
    audit = AuditLog(database, key="sealing key", anchor=AnchorFile(tmp_path / "audit.anchor"))
    write(audit, 6)
    with closing(Burglar(file, seed=1).connection) as connection:
        connection.execute("DELETE FROM audit_log WHERE sequence > 3")
    write(audit, 10, ROOT)
    assert [(finding.row, finding.code) for finding in audit.verify().findings] == [
        (4, "row_replaced"),
        (5, "row_replaced"),
        (6, "row_replaced"),
    ]
    database.close()
