"""The audit log: who did what to what, when, from where, and with which result. Rows are only ever added."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import event, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from loramill.auth.audit_chain import FIRST_LINK, AnchorFile, AuditEntry, AuditFinding, ChainCheck
from loramill.auth.keys import audit_key
from loramill.auth.models import AuditRow
from loramill.database import Database, take_turns
from loramill.errors import ConfigError, LoramillError, Problem
from loramill.redaction import one_line, redact
from loramill.settings import Settings

DONE = "ok"
MAX_QUERY_ROWS = 1000
VERIFY_BATCH_ROWS = 1000
MICROSECONDS = 1_000_000
MAX_UNIX_SECONDS = 1e11
"""The year 5138; keeps a query inside the column's 64 bits."""

APPEND_LOCK = 7_264_532
"""Of an append."""

APPEND = insert(AuditRow)
NEWEST = select(AuditRow.sequence, AuditRow.seal).order_by(AuditRow.sequence.desc()).limit(1)
COLUMNS = tuple(getattr(AuditRow, name) for name in AuditEntry.__dataclass_fields__)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Actor:
    """Who does something: a signed-in user, or nobody yet (no ``user_id``), at a network address."""

    user_id: str | None
    role: str | None
    address: str


@dataclass(frozen=True)
class AuditReport:
    """Outcome of a verification. ``anchored`` is the last row that the anchor file remembers."""

    rows: int
    anchored: int
    findings: tuple[AuditFinding, ...]

    @property
    def intact(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, object]:
        return {
            "intact": self.intact,
            "rows": self.rows,
            "anchored": self.anchored,
            "findings": [finding.as_dict() for finding in self.findings],
        }


class AuditLog:
    """Appends to, reads and verifies the audit log.

    Args:
        key: seals the rows; whoever has only the database cannot make a row that fits.
        anchor: the file that remembers seals outside the database.
    """

    def __init__(self, database: Database, *, key: str, anchor: AnchorFile) -> None:
        self._database = database
        self._key = key.encode()
        self._anchor = anchor

    @classmethod
    def from_settings(cls, settings: Settings, database: Database) -> AuditLog:
        anchor = AnchorFile(settings.audit_anchor or settings.results_folder / "audit.anchor")
        return cls(database, key=audit_key(settings), anchor=anchor)

    @contextlib.contextmanager
    def transaction(self, actor: Actor, action: str, target: str) -> Iterator[Session]:
        """A transaction that leaves exactly one row: with the change when it commits, or alone when it is refused.

        Raises:
            LoramillError: whatever refused the change, after it was recorded.
        """
        try:
            with self._database.transaction() as session:
                yield session
                self.record(session, actor, action, target)
        except LoramillError as error:
            self.record_refusal(actor, action, target, error)
            raise

    def record(self, session: Session, actor: Actor, action: str, target: str, result: str = DONE) -> None:
        """Append a row in the caller's transaction; the anchor file follows its commit.

        Call it last: on PostgreSQL, whoever appends next waits until this transaction ends.

        Raises:
            RuntimeError: a savepoint is open, which could take back a row that the anchor then remembers.
        """
        if session.in_nested_transaction():
            raise RuntimeError("The audit log is written outside savepoints only.")
        take_turns(session, APPEND_LOCK)
        connection = session.connection()
        last, link = connection.execute(NEWEST).first() or (0, FIRST_LINK)
        entry = AuditEntry(
            sequence=last + 1,
            time=time.time_ns() // 1000,
            user_id=None if actor.user_id is None else _clean(actor.user_id, 64),
            role=actor.role,
            action=_clean(action, 64),
            target=_clean(target, 255),
            result=_clean(result, 64),
            address=_clean(actor.address, 64),
            previous=link,
        )
        seal = entry.sealed_with(self._key)
        connection.execute(APPEND, {**vars(entry), "seal": seal})
        event.listen(session, "after_commit", lambda _session: self._remember(entry.sequence, seal), once=True)

    def record_refusal(self, actor: Actor, action: str, target: str, error: LoramillError) -> None:
        """Append what was refused, in a transaction of its own; does nothing for an error recorded before."""
        if error.audited:
            return
        with self._database.transaction() as session:
            self.record(session, actor, action, target, error.code)
        error.audited = True

    def query(
        self,
        *,
        user_id: str | None = None,
        role: str | None = None,
        start_time: float | None = None,
        end_time: float | None = None,
        limit: int = 100,
    ) -> list[AuditEntry]:
        """The newest rows that fit, newest first.

        Args:
            start_time, end_time: Unix seconds, both included.
            limit: 1 to 1,000.

        Raises:
            ConfigError: a limit or a time is out of range.
        """
        _check_query(limit, start_time=start_time, end_time=end_time)
        question = select(*COLUMNS).order_by(AuditRow.sequence.desc()).limit(limit)
        if user_id is not None:
            question = question.where(AuditRow.user_id == user_id)
        if role is not None:
            question = question.where(AuditRow.role == role)
        if start_time is not None:
            question = question.where(AuditRow.time >= int(start_time * MICROSECONDS))
        if end_time is not None:
            question = question.where(AuditRow.time <= int(end_time * MICROSECONDS))
        with self._database.reading() as session:
            return [AuditEntry(*row) for row in session.execute(question)]

    def verify(self) -> AuditReport:
        """Check every row against its seal, its neighbours and the anchor file.

        The anchor is read first: it is written after the commit, so that rows may only be ahead of it.
        """
        anchors, findings = self._anchor.read()
        chain = ChainCheck(anchors, self._key)
        rows = select(*COLUMNS).order_by(AuditRow.sequence).execution_options(yield_per=VERIFY_BATCH_ROWS)
        with self._database.reading() as session:
            try:
                for row in session.execute(rows):
                    chain.check(AuditEntry(*row))
                chain.finish()
            except SQLAlchemyError as error:
                chain.stop(f"The database cannot read it: {getattr(error, 'orig', error)}")
        return AuditReport(chain.rows, max(anchors, default=0), (*findings, *chain.findings))

    def _remember(self, sequence: int, seal: str) -> None:
        try:
            self._anchor.append(sequence, seal)
        except OSError as error:  # the change is committed: failing now would only have the caller repeat it
            log.error("Audit row %d is not in the anchor file %s: %s", sequence, self._anchor.path, error)


def _check_query(limit: int, **times: float | None) -> None:
    problems = [
        Problem(name, value, "must be a time in Unix seconds")
        for name, value in times.items()
        if value is not None and not abs(value) < MAX_UNIX_SECONDS
    ]
    if not 1 <= limit <= MAX_QUERY_ROWS:
        problems.append(Problem("limit", limit, f"must be 1 to {MAX_QUERY_ROWS}"))
    if problems:
        raise ConfigError(problems, source="audit query")


def _clean(value: str, limit: int) -> str:
    """Fit for a log: no tokens, nothing that starts a line or drives a terminal, bounded."""
    return one_line(redact(value))[:limit]
