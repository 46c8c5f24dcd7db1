from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import text

from loramill.database import Database
from loramill.errors import ConflictError
from loramill.experiments.models import Experiment, Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.control import request_cancel
from loramill.jobs.lease import (
    GIVE_UP_SECONDS,
    LEASE_SECONDS,
    RENEW_SECONDS,
    Claim,
    LeaseKeeper,
    LeaseState,
    claim,
    give_back,
    record_checkpoint,
    renew,
)

Submit = Callable[..., str]
Take = Callable[..., Claim]
Row = Callable[..., Experiment]


def test_a_worker_ends_its_work_before_anybody_may_begin_it_again() -> None:
    assert 3 * RENEW_SECONDS < GIVE_UP_SECONDS < LEASE_SECONDS - 5


def test_a_claim_takes_a_waiting_job(submit: Submit, take: Take, row: Row) -> None:
    submit()
    taken = take(worker="machine:42")
    assert (taken.experiment_id, taken.attempt, taken.resume) == ("job", 1, False)
    held = row()
    assert (held.status, held.attempt, held.worker) == (Status.STARTED, 1, "machine:42")
    assert held.started_at is not None
    assert held.lease_until is not None


@pytest.mark.parametrize("status", [status for status in Status if status != Status.PENDING])
def test_what_does_not_wait_cannot_be_claimed(status: Status, submit: Submit, database: Database) -> None:
    submit()
    with database.transaction() as session:
        ExperimentStore(session).get("job").status = status
    with database.transaction() as session:
        assert claim(session, "job", worker="w") is None
        assert claim(session, "deleted", worker="w") is None


def test_a_message_delivered_to_twenty_workers_starts_one(submit: Submit, database: Database, row: Row) -> None:
    submit()
    gate = threading.Barrier(20)
    claims: list[Claim | None] = []

    def deliver(number: int) -> None:
        gate.wait()
        for _ in range(3):
            with database.transaction() as session:
                claims.append(claim(session, "job", worker=f"worker {number}"))

    threads = [threading.Thread(target=deliver, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claims) == 60
    assert len([taken for taken in claims if taken]) == 1
    assert row().attempt == 1


def test_a_lease_is_renewed_and_seen_to_change(submit: Submit, take: Take, database: Database, row: Row) -> None:
    submit()
    taken = take()
    before = row().lease_until
    with database.transaction() as session:
        assert renew(session, taken) == LeaseState.HELD
    assert row().lease_until != before


def test_a_worker_hears_that_its_job_was_cancelled(submit: Submit, take: Take, database: Database) -> None:
    submit()
    taken = take()
    with database.transaction() as session:
        request_cancel(session, "job")
    with database.transaction() as session:
        assert renew(session, taken) == LeaseState.CANCELLED


def test_a_job_given_back_goes_on_elsewhere_and_the_old_worker_may_write_nothing(
    submit: Submit, take: Take, database: Database, row: Row
) -> None:
    submit()
    old = take()
    with database.transaction() as session:
        assert give_back(session, old) == Status.PENDING
    waiting = row()
    assert (waiting.status, waiting.worker, waiting.resume, waiting.setbacks) == (Status.PENDING, None, True, 0)
    check_old_claim_is_powerless(database, old)
    new = take(worker="worker 2")
    assert (new.attempt, new.resume) == (2, True)
    check_old_claim_is_powerless(database, old)
    with database.transaction() as session:
        assert renew(session, new) == LeaseState.HELD
        ExperimentStore(session).mark_finished("job", {}, attempt=new.attempt)
    assert row().status == Status.SUCCESS
    check_old_claim_is_powerless(database, new)


def test_a_cancelled_job_is_not_given_back_but_ended(submit: Submit, take: Take, database: Database, row: Row) -> None:
    submit()
    taken = take()
    with database.transaction() as session:
        request_cancel(session, "job")
    with database.transaction() as session:
        assert give_back(session, taken) == Status.REVOKED
    assert (row().status, row().worker) == (Status.REVOKED, "worker 1")
    assert row().finished_at is not None


def check_old_claim_is_powerless(database: Database, old: Claim) -> None:
    with database.transaction() as session:
        assert renew(session, old) == LeaseState.LOST
        assert not give_back(session, old)
        record_checkpoint(session, old)
    writes: list[Callable[[ExperimentStore], None]] = [
        lambda store: store.mark_progress("job", {"step": 1}, attempt=old.attempt),
        lambda store: store.mark_finished("job", {"eval": {"accuracy": 1.0}}, attempt=old.attempt),
        lambda store: store.mark_revoked("job", attempt=old.attempt),
    ]
    for write in writes:
        with pytest.raises(ConflictError), database.transaction() as session:
            write(ExperimentStore(session))


def test_the_first_start_is_kept(submit: Submit, take: Take, database: Database, row: Row) -> None:
    submit()
    first = take()
    started = row().started_at
    with database.transaction() as session:
        give_back(session, first)
    take()
    assert row().started_at == started


def test_a_checkpoint_is_what_setbacks_are_counted_from(
    submit: Submit, take: Take, database: Database, row: Row
) -> None:
    submit()
    with database.transaction() as session:
        ExperimentStore(session).get("job").setbacks = 7
    taken = take()
    with database.transaction() as session:
        record_checkpoint(session, taken)
    assert (row().setbacks, row().resume) == (0, True)


def test_a_keeper_renews_for_as_long_as_the_block_lasts(
    submit: Submit, take: Take, database: Database, row: Row
) -> None:
    submit()
    taken = take()
    seen = set()
    with LeaseKeeper(database, taken, renew_seconds=0.02, give_up_seconds=5) as keeper:
        until = time.monotonic() + 30
        while len(seen) < 4 and time.monotonic() < until:
            seen.add(row().lease_until)
            assert keeper.state == LeaseState.HELD
    assert len(seen) >= 4
    rested = row().lease_until
    time.sleep(0.1)
    assert row().lease_until == rested


def wait_for(keeper: LeaseKeeper, state: LeaseState, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while keeper.state != state and time.monotonic() < until:
        time.sleep(0.01)
    assert keeper.state == state


def test_a_keeper_tells_of_a_cancel_and_of_a_loss(submit: Submit, take: Take, database: Database) -> None:
    submit()
    taken = take()
    with LeaseKeeper(database, taken, renew_seconds=0.02, give_up_seconds=5) as keeper:
        with database.transaction() as session:
            request_cancel(session, "job")
        wait_for(keeper, LeaseState.CANCELLED)
        with database.transaction() as session:
            ExperimentStore(session).get("job").attempt = 2
        wait_for(keeper, LeaseState.LOST)


@contextmanager
def stuck(database: Database) -> Iterator[None]:
    """Nobody else can write the row of the job."""
    with closing(database.engine.connect()) as connection:
        connection.execute(text("UPDATE experiment SET notes = 'stuck' WHERE id = 'job'"))
        yield
        connection.rollback()


def test_a_keeper_that_hears_nothing_from_the_database_gives_up_in_time(
    submit: Submit, take: Take, database: Database
) -> None:
    submit()
    taken = take()
    with LeaseKeeper(database, taken, renew_seconds=0.02, give_up_seconds=0.5) as keeper:
        wait_for(keeper, LeaseState.HELD)
        with stuck(database):
            stuck_at = time.monotonic()
            wait_for(keeper, LeaseState.LOST)
            assert 0.3 < time.monotonic() - stuck_at < 10
        wait_for(keeper, LeaseState.HELD)


def test_a_keeper_survives_a_database_that_comes_and_goes(submit: Submit, take: Take, database: Database) -> None:
    submit()
    taken = take()
    with LeaseKeeper(database, taken, renew_seconds=0.02, give_up_seconds=5) as keeper:
        with database.transaction() as session:
            session.execute(text("ALTER TABLE experiment RENAME TO hidden"))
        time.sleep(0.2)
        assert keeper.state == LeaseState.HELD
        with database.transaction() as session:
            session.execute(text("ALTER TABLE hidden RENAME TO experiment"))
            request_cancel(session, "job")
        wait_for(keeper, LeaseState.CANCELLED)
