from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from loramill.database import Database
from loramill.experiments.models import Experiment, Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.control import request_cancel
from loramill.jobs.lease import Claim, LeaseState, claim, give_back, record_checkpoint, renew
from loramill.jobs.reaper import Reaped, Reaper
from loramill.jobs.retries import MAX_DELAY_SECONDS, MAX_SETBACKS

Submit = Callable[..., str]
Take = Callable[..., Claim]
Row = Callable[..., Experiment]
HOUR = timedelta(hours=1)


class World:
    """A queue and a clock for the reapers of a test."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.seconds = 1000.0
        self.queue: list[str] = []
        self.ended: list[str] = []
        self.reaper = self.new_reaper()

    def new_reaper(self) -> Reaper:
        return Reaper(
            self.database,
            publish=self.queue.append,
            queue_is_empty=lambda: not self.queue,
            on_ended=self.ended.append,
            lease_seconds=30,
            resend_seconds=10,
            clock=lambda: self.seconds,
        )

    def after(self, seconds: float) -> Reaped:
        self.seconds += seconds
        return self.reaper.tick()

    def renew(self, taken: Claim) -> LeaseState:
        with self.database.transaction() as session:
            return renew(session, taken)

    def change(self, **values: object) -> None:
        with self.database.transaction() as session:
            experiment = ExperimentStore(session).get("job")
            for name, value in values.items():
                setattr(experiment, name, value)


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


def test_a_worker_that_is_silent_for_a_lease_loses_its_job(world: World, submit: Submit, take: Take, row: Row) -> None:
    submit()
    taken = take()
    assert world.after(0) == Reaped()
    assert world.after(29) == Reaped()
    assert world.after(1) == Reaped(requeued=("job",), published=("job",))
    assert world.ended == []
    waiting = row()
    assert (waiting.status, waiting.worker, waiting.resume, waiting.setbacks) == (Status.PENDING, None, True, 1)
    assert world.renew(taken) == LeaseState.LOST
    assert take(worker="worker 2").attempt == 2


def test_a_worker_that_renews_keeps_its_job_for_ever(world: World, submit: Submit, take: Take) -> None:
    submit()
    taken = take()
    for _ in range(50):
        assert world.renew(taken) == LeaseState.HELD
        assert world.after(29) == Reaped()


@pytest.mark.parametrize("jump", [-HOUR, HOUR, -25 * HOUR, 1000 * HOUR])
def test_clocks_that_jump_or_differ_steal_no_lease(jump: timedelta, world: World, submit: Submit, take: Take) -> None:
    """The clock on the wall of the worker, or of the reaper, is off by hours: only the change of a lease is trusted."""
    submit()
    taken = take()
    for beat in range(10):
        assert world.renew(taken) == LeaseState.HELD
        world.change(lease_until=datetime.now(UTC) + jump + timedelta(seconds=beat))
        assert world.after(20) == Reaped()
    world.after(0)
    assert world.after(30).requeued == ("job",), "and a silent one is found although its lease ends in the future"


def test_a_reaper_that_was_restarted_takes_nothing_before_a_lease_is_over(
    world: World, submit: Submit, take: Take
) -> None:
    submit()
    take()
    world.after(0)
    world.seconds += 1000
    world.reaper = world.new_reaper()
    assert world.after(0) == Reaped()
    assert world.after(30).requeued == ("job",)


def test_a_run_at_the_shell_has_no_lease_to_lose(world: World, submit: Submit, database: Database, row: Row) -> None:
    submit()
    with database.transaction() as session:
        ExperimentStore(session).mark_started("job")
    world.after(0)
    assert world.after(10_000) == Reaped()
    assert row().status == Status.STARTED


def test_a_cancelled_job_whose_worker_is_lost_ends_as_cancelled(
    world: World, submit: Submit, take: Take, row: Row
) -> None:
    submit()
    take()
    with world.database.transaction() as session:
        request_cancel(session, "job")
    world.after(0)
    assert world.after(30) == Reaped(revoked=("job",))
    assert world.ended == ["job"]
    assert row().status == Status.REVOKED
    assert world.after(1000) == Reaped(), "and it does not come back"


def test_a_job_that_kills_every_worker_fails_in_the_end(world: World, submit: Submit, take: Take, row: Row) -> None:
    submit()
    for lost in range(1, MAX_SETBACKS["worker_lost"] + 1):
        take(worker=f"worker {lost}")
        world.after(0)
        last = world.after(30)
        world.change(not_before=None)
    assert last == Reaped(failed=("job",))
    failed = row()
    assert (failed.status, failed.error_code) == (Status.FAILURE, "worker_lost")
    assert "worker 20" in str(failed.error_message)


def test_a_job_that_gets_on_may_lose_any_number_of_workers(world: World, submit: Submit, take: Take) -> None:
    submit()
    for _ in range(40):
        taken = take()
        with world.database.transaction() as session:
            record_checkpoint(session, taken)
        world.after(0)
        assert world.after(30) == Reaped(requeued=("job",), published=("job",))


def test_a_retry_is_sent_once_when_its_delay_is_over(world: World, submit: Submit, take: Take) -> None:
    submit()
    taken = take()
    with world.database.transaction() as session:
        give_back(session, taken)
    world.change(not_before=datetime.now(UTC) + timedelta(seconds=0.3))
    assert world.after(0) == Reaped()
    time.sleep(0.4)
    assert [world.reaper.tick().published, world.new_reaper().tick().published] == [("job",), ()]


def test_a_job_whose_message_was_lost_is_sent_again(world: World, submit: Submit, take: Take) -> None:
    submit()
    assert world.after(0) == Reaped()
    assert world.after(9) == Reaped()
    assert world.after(1).published == ("job",)
    assert world.after(9) == Reaped(), "it is in the queue now"
    world.queue.clear()
    assert world.after(1).published == ("job",), "lost again"
    world.queue.clear()
    take()
    assert world.after(20) == Reaped()


def test_a_long_queue_is_not_made_longer(world: World, submit: Submit) -> None:
    for number in range(30):
        world.queue.append(submit(f"job {number}"))
    for _ in range(20):
        assert world.after(100) == Reaped()
    assert len(world.queue) == 30


def test_everything_comes_back_after_the_queue_was_emptied(world: World, submit: Submit) -> None:
    names = [submit(f"job {number}", priority=number % 2) for number in range(30)]
    world.after(0)
    published = world.after(10).published
    assert sorted(published) == sorted(names)
    assert set(published[:15]) == {name for name in names if int(name.split()[1]) % 2}, "the urgent ones first"


def test_a_clock_that_went_back_does_not_hold_a_retry_for_an_hour(world: World, submit: Submit) -> None:
    submit()
    world.change(not_before=datetime.now(UTC) + HOUR)
    world.after(0)
    assert world.after(MAX_DELAY_SECONDS - 1) == Reaped()
    assert world.after(1).published == ("job",)


def test_a_renewal_and_a_reaper_at_the_same_moment(world: World, submit: Submit, row: Row) -> None:
    """Either the worker goes on, or the job is requeued and the worker hears of it: never both, never neither."""
    for number in range(20):
        name = submit(f"job {number}")
        with world.database.transaction() as session:
            taken = claim(session, name, worker="w")
        assert taken is not None
        world.after(0)
        world.seconds += 30
        gate = threading.Barrier(2)
        reaped: list[Reaped] = []

        def reap(gate: threading.Barrier = gate, reaped: list[Reaped] = reaped) -> None:
            gate.wait()
            reaped.append(world.reaper.tick())

        thread = threading.Thread(target=reap)
        thread.start()
        gate.wait()
        state = world.renew(taken)
        thread.join()
        assert (state == LeaseState.LOST) == (name in reaped[0].requeued)
        assert row(name).status == (Status.PENDING if state == LeaseState.LOST else Status.STARTED)
        with world.database.transaction() as session:
            ExperimentStore(session).mark_revoked(name)


def test_two_reapers_requeue_a_job_once(world: World, submit: Submit, take: Take, row: Row) -> None:
    submit()
    take()
    second = world.new_reaper()
    world.after(0)
    second.tick()
    world.seconds += 30
    gate = threading.Barrier(2)
    requeued: list[str] = []

    def reap(reaper: Reaper) -> None:
        gate.wait()
        requeued.extend(reaper.tick().requeued)

    threads = [threading.Thread(target=reap, args=(reaper,)) for reaper in (world.reaper, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert requeued == ["job"]
    assert row().setbacks == 1
