"""Who works on an experiment: a lease that is taken by one UPDATE, renewed while the work goes on, and fenced.

The row is the truth. A message from the queue, however often it is delivered, is only a reason to try ``claim``.
Each claim counts the attempt up, and every later write names its attempt, so that a worker that lost its lease
changes nothing any more.

No lease ends by the clock on the wall, which machines set differently and people set wrongly: ``lease_until`` is for
people to read, and for the reaper to see *that* it changes (``reaper``). The worker measures its own silence with a
clock that only ever goes forward.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any

from sqlalchemy import Select, bindparam, func, literal, or_, select, true, union_all, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from loramill.database import Database, UtcDateTime
from loramill.errors import ConflictError
from loramill.experiments.models import Experiment, Status
from loramill.jobs.job_tables import TABLES, JobKind, SweepJob, end_trials, may_be_taken

LEASE_SECONDS = 30.0
"""A row whose lease was not renewed for so long is taken from its worker."""

GIVE_UP_SECONDS = 20.0
"""A worker that could not renew for so long ends its work, well before somebody else may begin it."""

RENEW_SECONDS = 2.0
"""Also the longest time until a worker notices that its job was cancelled."""

MAX_RACES = 50
"""Times that others are faster before a worker leaves the rest to them."""

AT_WORK = (Status.STARTED, Status.PROGRESS)

log = logging.getLogger(__name__)


def _claim_of(kind: JobKind) -> ReturningUpdate[int, bool]:
    table = TABLES[kind]
    taken = {
        "status": Status.STARTED,
        "attempt": table.attempt + 1,
        "worker": bindparam("by"),
        "lease_until": bindparam("until"),
        "not_before": None,
        "started_at": func.coalesce(table.started_at, bindparam("now", type_=UtcDateTime())),
    }
    waits = table.id == bindparam("job"), table.status == Status.PENDING, may_be_taken(kind)
    return update(table).where(*waits).values(**taken).returning(table.attempt, table.resume)


def _first_of(kind: JobKind) -> Select[Any]:
    table = TABLES[kind]
    ours = true() if kind == JobKind.SWEEP else or_(Experiment.task_id.is_not(None), table.id == bindparam("heard_of"))
    first = (
        select(literal(kind.value).label("kind"), table.priority, table.created_at, table.id)
        .where(table.status == Status.PENDING, table.not_before.is_(None), may_be_taken(kind), ours)
        .order_by(table.priority.desc(), table.number)
        .limit(1)
    )
    return select(first.subquery())


CLAIMS = {kind: _claim_of(kind) for kind in TABLES}
FIRST_WAITING = union_all(*map(_first_of, TABLES))
"""Made once: making a statement takes longer than the database takes to answer it, while somebody waits for the start.
What waits for a retry is not due yet."""


@dataclass(frozen=True)
class Claim:
    """The right to work on a run or a sweep.

    Args:
        experiment_id: the run's, or the sweep's.
        attempt: 1 for the first worker, counted up for each further one; fences every write.
        resume: go on from the last checkpoint.
        claimed_at: monotonic seconds, from just before the claim.
    """

    experiment_id: str
    attempt: int
    resume: bool
    claimed_at: float = field(compare=False)
    kind: JobKind = JobKind.RUN

    @property
    def table(self) -> type[Experiment] | type[SweepJob]:
        return TABLES[self.kind]


class LeaseState(StrEnum):
    """What a worker has to do: go on, end the work as its owner wishes, or end it because it is no longer its own."""

    HELD = "held"
    CANCELLED = "cancelled"
    LOST = "lost"


def claim(session: Session, experiment_id: str, *, worker: str) -> Claim | None:
    """Take a waiting run or sweep; ``None`` when it is not waiting: taken, finished, cancelled or deleted."""
    claims = (_claim(session, kind, experiment_id, worker) for kind in TABLES)
    return next((taken for taken in claims if taken is not None), None)


def _claim(session: Session, kind: JobKind, job_id: str, worker: str) -> Claim | None:
    claimed_at = time.monotonic()
    values = {"job": job_id, "by": worker, "until": _lease_end(), "now": datetime.now(UTC)}
    taken = session.connection().execute(CLAIMS[kind], values).first()
    return None if taken is None else Claim(job_id, taken.attempt, taken.resume, claimed_at, kind)


def claim_next(session: Session, heard_of: str, *, worker: str) -> Claim | None:
    """Take the waiting job of the highest priority, the oldest of equals; ``None`` when none waits.

    Args:
        heard_of: the job that a message named. Others are taken when they came through the service: a run that a
            person starts at the shell waits for a moment too, and is done there.
    """
    for _ in range(MAX_RACES):
        firsts = session.connection().execute(FIRST_WAITING, {"heard_of": heard_of}).all()
        if not firsts:
            return None
        first = min(firsts, key=lambda row: (-row.priority, row.created_at, row.id))
        taken = _claim(session, JobKind(first.kind), first.id, worker)
        if taken is not None:
            return taken
    return None


def require_held(session: Session, claim: Claim) -> None:
    """Hold a claim's row until the transaction ends, so that what else it writes is fenced too.

    Raises:
        ConflictError: the claim was lost.
    """
    if _change(session, claim, attempt=claim.attempt) is None:
        raise ConflictError(f"Attempt {claim.attempt} at {claim.experiment_id!r} was lost.")


def renew(session: Session, claim: Claim) -> LeaseState:
    """Hold on to a claim for another lease, and hear whether the work is still wanted."""
    cancelled = _change(session, claim, lease_until=_lease_end())
    if cancelled is None:
        return LeaseState.LOST
    return LeaseState.CANCELLED if cancelled else LeaseState.HELD


def record_checkpoint(session: Session, claim: Claim) -> None:
    """Note that the next attempt has something to go on from: setbacks are counted from here."""
    _change(session, claim, setbacks=0, resume=True)


def record_progress(session: Session, claim: Claim, progress: Mapping[str, Any]) -> None:
    """Note how the work is going on."""
    _change(session, claim, status=Status.PROGRESS, progress=dict(progress))


def finish(session: Session, claim: Claim, *, progress: Mapping[str, Any]) -> None:
    """Note success.

    Raises:
        ConflictError: the claim was lost.
    """
    ended = {"status": Status.SUCCESS, "finished_at": datetime.now(UTC), "progress": dict(progress)}
    if _change(session, claim, **ended) is None:
        raise ConflictError(f"Attempt {claim.attempt} at {claim.experiment_id!r} was lost.")


def revoke(session: Session, claim: Claim) -> bool:
    """End a job as its owner wished, and with a sweep its trials. Returns whether it was still ours to end."""
    ended = {"status": Status.REVOKED, "finished_at": datetime.now(UTC)}
    if _change(session, claim, **ended) is None:
        return False
    if claim.kind == JobKind.SWEEP:
        end_trials(session, claim.experiment_id, **ended)
    return True


def give_back(session: Session, claim: Claim) -> Status | None:
    """Let another worker go on from the last checkpoint, because this one shuts down; the reaper sends it to them.

    Returns:
        PENDING; REVOKED when its owner wished it to end; ``None`` when it was not ours to give any more.
    """
    state = renew(session, claim)
    if state == LeaseState.LOST:
        return None
    if state == LeaseState.CANCELLED:
        revoke(session, claim)
        return Status.REVOKED
    waiting = {"status": Status.PENDING, "worker": None, "lease_until": None, "resume": True}
    _change(session, claim, **waiting, not_before=datetime.now(UTC))
    return Status.PENDING


class LeaseKeeper:
    """Renews a claim in the background for as long as the block lasts. ``state`` never waits for the database.

    A database that is away, or hangs, is silence: after ``GIVE_UP_SECONDS`` of it the lease counts as lost, and the
    holder has to end its work at once.
    """

    def __init__(
        self,
        database: Database,
        claim: Claim,
        *,
        renew_seconds: float = RENEW_SECONDS,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        self._database = database
        self._claim = claim
        self._renew_seconds = renew_seconds
        self._give_up_seconds = give_up_seconds
        self._renewed_at = claim.claimed_at
        self._told = LeaseState.HELD
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease of {claim.experiment_id}", daemon=True)

    @property
    def state(self) -> LeaseState:
        silence = time.monotonic() - self._renewed_at
        return LeaseState.LOST if silence > self._give_up_seconds else self._told

    @property
    def was_refused(self) -> bool:
        """Whether the row itself said that the claim holds no longer: taken over, or ended; not mere silence."""
        return self._told == LeaseState.LOST

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(timeout=self._renew_seconds)  # one that hangs in the database must not keep the worker

    def _keep(self) -> None:
        while not self._stopped.wait(self._renew_seconds) and self._told != LeaseState.LOST:
            started = time.monotonic()
            try:
                with self._database.transaction() as session:
                    told = renew(session, self._claim)
            except SQLAlchemyError as error:
                log.warning("The lease of %s was not renewed: %s", self._claim.experiment_id, error)
                continue
            if told != LeaseState.LOST:
                self._renewed_at = started
            self._told = told


def _change(session: Session, claim: Claim, **values: Any) -> bool | None:
    """Write to the row of a claim while it holds: whether it was cancelled, or ``None`` when it holds no longer."""
    table = claim.table
    changed = session.execute(
        update(table)
        .where(table.id == claim.experiment_id, table.attempt == claim.attempt, table.status.in_(AT_WORK))
        .values(**values)
        .returning(table.cancel_requested)
        .execution_options(synchronize_session=False)
    ).first()
    return None if changed is None else bool(changed.cancel_requested)


def _lease_end() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=LEASE_SECONDS)
