"""Finds work that nobody does: leases that are not renewed any more, and waiting jobs whose message was lost.

The reaper trusts what it sees, not the clock on the wall: a lease has ended when its row was seen unchanged for
``LEASE_SECONDS`` of a clock that only goes forward. Clocks that differ or jump thus steal no lease, and a reaper that
was restarted waits one lease before it takes anything. Any number of reapers may run; each of their changes is one
UPDATE that names what was seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from loramill.database import Database
from loramill.errors import WorkerLostError
from loramill.experiments.models import FINISHED, Status
from loramill.jobs.job_tables import TABLES, JobKind, lock_job, may_be_taken
from loramill.jobs.lease import AT_WORK, LEASE_SECONDS
from loramill.jobs.retries import MAX_DELAY_SECONDS, set_back

RESEND_SECONDS = 10.0
BATCH_ROWS = 1000


@dataclass(frozen=True)
class Reaped:
    """What one look did, as experiment ids."""

    requeued: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    published: tuple[str, ...] = ()


class Lease(NamedTuple):
    """A lease as it was seen; the same as long as nobody renewed it."""

    kind: JobKind
    experiment_id: str
    attempt: int
    lease_until: datetime


class Reaper:
    """Looks once in a while (``tick``); remembers only since when it has seen what it sees.

    Args:
        publish: sends an experiment's id to the workers; called after the commit.
        on_ended: told the id of each job that it ended for good; called after the commit.
        queue_is_empty: whether no message waits. Only then can a waiting job have lost its own, so that a long queue
            is not made longer by sending everything again.
        lease_seconds, resend_seconds: see the constants.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        database: Database,
        *,
        publish: Callable[[str], None],
        queue_is_empty: Callable[[], bool],
        on_ended: Callable[[str], None] = lambda _job_id: None,
        lease_seconds: float = LEASE_SECONDS,
        resend_seconds: float = RESEND_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._publish = publish
        self._queue_is_empty = queue_is_empty
        self._on_ended = on_ended
        self._lease_seconds = lease_seconds
        self._resend_seconds = resend_seconds
        self._clock = clock
        self._leases: dict[Lease, float] = {}
        self._waiting: dict[tuple[str, int], float] = {}

    def tick(self) -> Reaped:
        """End the leases that were silent for too long; send what is due, and what seems to have lost its message."""
        ended: dict[Status, list[str]] = {Status.PENDING: [], Status.REVOKED: [], Status.FAILURE: []}
        for lease in self._silent_leases():
            with self._database.transaction() as session:
                status = self._end(session, lease)
            if status is not None:
                ended[status].append(lease.experiment_id)
            if status in FINISHED:
                self._on_ended(lease.experiment_id)
        published = [*self._take_due(), *self._find_unheard()]
        for experiment_id in published:
            self._publish(experiment_id)
        return Reaped(
            tuple(ended[Status.PENDING]), tuple(ended[Status.REVOKED]), tuple(ended[Status.FAILURE]), tuple(published)
        )

    def _silent_leases(self) -> list[Lease]:
        seen: list[Lease] = []
        with self._database.reading() as session:
            for kind, table in TABLES.items():
                held = select(table.id, table.attempt, table.lease_until).where(table.status.in_(AT_WORK))
                seen += [Lease(kind, name, number, until) for name, number, until in session.execute(held) if until]
        now = self._clock()
        self._leases = {lease: self._leases.get(lease, now) for lease in seen}
        return [lease for lease, since in self._leases.items() if now - since >= self._lease_seconds]

    def _end(self, session: Session, lease: Lease) -> Status | None:
        """Take a row from its worker, unless the worker was heard in the meantime. Returns the new status."""
        table = TABLES[lease.kind]
        row = lock_job(
            session,
            lease.kind,
            table.id == lease.experiment_id,
            table.attempt == lease.attempt,
            table.lease_until == lease.lease_until,
            table.status.in_(AT_WORK),
        )
        if row is None:
            return None
        return set_back(
            session, row, WorkerLostError(f"The worker {row.worker} was lost, and so were those before it.")
        )

    def _take_due(self) -> list[str]:
        """Jobs whose delay is over; ``not_before`` goes, so that only one reaper sends each."""
        taken: list[str] = []
        with self._database.transaction() as session:
            for table in TABLES.values():
                due = (
                    update(table)
                    .where(table.status == Status.PENDING, table.not_before <= datetime.now(UTC))
                    .values(not_before=None)
                    .returning(table.id)
                )
                taken += session.scalars(due.execution_options(synchronize_session=False))
        return taken

    def _find_unheard(self) -> list[str]:
        """Jobs that wait, seen so for a while, although the queue is empty: their message was lost.

        Or the clock on the wall went back, and what was to wait for seconds would now wait for an hour.
        """
        patience: dict[tuple[str, int], float] = {}
        with self._database.reading() as session:
            for kind, table in TABLES.items():
                waits = (
                    select(table.id, table.attempt, table.not_before)
                    .where(table.status == Status.PENDING, may_be_taken(kind))
                    .order_by(table.priority.desc(), table.number)
                    .limit(BATCH_ROWS)
                )
                for row in session.execute(waits):
                    seconds = self._resend_seconds if row.not_before is None else MAX_DELAY_SECONDS
                    patience[row.id, row.attempt] = seconds
        now = self._clock()
        self._waiting = {job: self._waiting.get(job, now) for job in patience}
        unheard = [job for job, since in self._waiting.items() if now - since >= patience[job]]
        if not unheard or not self._queue_is_empty():
            return []
        self._waiting.update(dict.fromkeys(unheard, now))
        return [experiment_id for experiment_id, _ in unheard]
