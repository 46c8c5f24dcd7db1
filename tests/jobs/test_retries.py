from __future__ import annotations

from collections.abc import Callable

import pytest

from loramill.database import Database
from loramill.errors import DataRefusedError, LoramillError, ModelNotFoundError, NonFiniteLossError, OutOfMemoryError
from loramill.experiments.models import Experiment, Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.control import request_cancel
from loramill.jobs.lease import Claim, record_checkpoint
from loramill.jobs.retries import MAX_SETBACKS, fail_or_retry, retry_delay

Submit = Callable[..., str]
Take = Callable[..., Claim]
Row = Callable[..., Experiment]
MEMORY = OutOfMemoryError("No memory left.", fix="Use a smaller batch.")


def end(database: Database, taken: Claim, error: LoramillError) -> Status | None:
    with database.transaction() as session:
        return fail_or_retry(session, taken, error)


def test_an_error_that_can_pass_is_tried_again_from_the_last_checkpoint(
    submit: Submit, take: Take, database: Database, row: Row
) -> None:
    submit()
    assert end(database, take(), MEMORY) == Status.PENDING
    waiting = row()
    assert (waiting.resume, waiting.worker, waiting.lease_until, waiting.setbacks) == (True, None, None, 1)
    assert waiting.not_before is not None
    assert take().resume


def test_the_third_time_in_a_row_it_is_final(submit: Submit, take: Take, database: Database, row: Row) -> None:
    submit()
    ended = [end(database, take(), MEMORY) for _ in range(MAX_SETBACKS["out_of_memory"])]
    assert ended == [Status.PENDING, Status.PENDING, Status.FAILURE]
    failed = row()
    assert (failed.error_code, failed.error_message) == ("out_of_memory", "No memory left. Use a smaller batch.")
    assert failed.finished_at is not None


def test_a_checkpoint_in_between_gives_it_all_its_tries_again(submit: Submit, take: Take, database: Database) -> None:
    submit()
    for _ in range(10):
        taken = take()
        with database.transaction() as session:
            record_checkpoint(session, taken)
        assert end(database, taken, MEMORY) == Status.PENDING


@pytest.mark.parametrize(
    "error", [DataRefusedError("No."), ModelNotFoundError("No."), NonFiniteLossError("No."), LoramillError("No.")]
)
def test_an_error_that_stays_is_never_tried_again(
    error: LoramillError, submit: Submit, take: Take, database: Database, row: Row
) -> None:
    submit()
    assert end(database, take(), error) == Status.FAILURE
    assert row().error_code == error.code


def test_a_cancelled_job_is_not_tried_again(submit: Submit, take: Take, database: Database) -> None:
    submit()
    taken = take()
    with database.transaction() as session:
        request_cancel(session, "job")
    assert end(database, taken, MEMORY) == Status.REVOKED


def test_a_worker_that_lost_its_claim_decides_nothing(submit: Submit, take: Take, database: Database, row: Row) -> None:
    submit()
    old = take()
    with database.transaction() as session:
        ExperimentStore(session).get("job").attempt = 2
    assert end(database, old, MEMORY) is None
    assert row().status == Status.STARTED


def test_delays_grow_to_a_minute() -> None:
    assert [retry_delay(count).total_seconds() for count in (1, 2, 3, 4, 6, 7, 10_000)] == [0, 1, 3, 7, 31, 60, 60]
