from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from loramill.database import Database
from loramill.errors import ConflictError, NotFoundError
from loramill.experiments.models import Experiment, Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.control import request_cancel, request_resume
from loramill.jobs.lease import Claim, LeaseState, claim, renew
from loramill.process_ends import process_name

Submit = Callable[..., str]
Take = Callable[..., Claim]
Row = Callable[..., Experiment]


def test_a_waiting_job_ends_at_once(submit: Submit, database: Database, row: Row) -> None:
    submit()
    with database.transaction() as session:
        assert request_cancel(session, "job")
    assert row().status == Status.REVOKED
    assert row().finished_at is not None
    with database.transaction() as session:
        assert claim(session, "job", worker="late") is None


def test_a_job_at_work_goes_on_until_its_worker_hears_of_it(
    submit: Submit, take: Take, database: Database, row: Row
) -> None:
    submit()
    take()
    with database.transaction() as session:
        assert request_cancel(session, "job")
    assert (row().status, row().cancel_requested, row().finished_at) == (Status.STARTED, True, None)


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILURE, Status.REVOKED])
def test_what_has_ended_stays_as_it_is(status: Status, submit: Submit, database: Database, row: Row) -> None:
    submit()
    with database.transaction() as session:
        ExperimentStore(session).get("job").status = status
    with database.transaction() as session:
        assert not request_cancel(session, "job")
    assert (row().status, row().cancel_requested) == (status, False)


def test_a_cancel_and_a_claim_at_the_same_moment(submit: Submit, database: Database, row: Row) -> None:
    """Either the worker comes too late, or it hears of the cancel at its first renewal: never neither."""
    for number in range(20):
        name = submit(f"job {number}")
        gate = threading.Barrier(2)
        claims: list[Claim | None] = []

        def work(name: str = name, gate: threading.Barrier = gate, claims: list[Claim | None] = claims) -> None:
            gate.wait()
            with database.transaction() as session:
                claims.append(claim(session, name, worker="w"))

        worker = threading.Thread(target=work)
        worker.start()
        gate.wait()
        with database.transaction() as session:
            assert request_cancel(session, name)
        worker.join()
        (taken,) = claims
        if taken is None:
            assert row(name).status == Status.REVOKED
        else:
            with database.transaction() as session:
                assert renew(session, taken) == LeaseState.CANCELLED


@pytest.mark.parametrize("status", [Status.FAILURE, Status.REVOKED])
def test_what_failed_or_was_cancelled_can_go_on(status: Status, submit: Submit, take: Take, database: Database) -> None:
    submit()
    with database.transaction() as session:
        ended = ExperimentStore(session).get("job")
        ended.status, ended.cancel_requested, ended.setbacks = status, True, 5
        ended.error_code, ended.error_message = "out_of_memory", "Too large."
    with database.transaction() as session:
        request_resume(session, "job")
        waiting = ExperimentStore(session).get("job")
        session.refresh(waiting)
        assert (waiting.status, waiting.finished_at, waiting.error_code) == (Status.PENDING, None, None)
    taken = take()
    assert taken.resume
    with database.transaction() as session:
        assert renew(session, taken) == LeaseState.HELD


@pytest.mark.parametrize("status", [Status.PENDING, Status.STARTED, Status.PROGRESS, Status.SUCCESS])
def test_nothing_else_can_go_on(status: Status, submit: Submit, database: Database) -> None:
    submit()
    with database.transaction() as session:
        ExperimentStore(session).get("job").status = status
    with pytest.raises(ConflictError, match=status), database.transaction() as session:
        request_resume(session, "job")


def test_a_run_of_the_shell_whose_process_was_killed_is_ended_and_goes_on(
    submit: Submit, database: Database, row: Row
) -> None:
    host, number, started = process_name().split(":")
    for ask in (request_cancel, request_resume):
        submit(name := ask.__name__)
        with database.transaction() as session:
            ExperimentStore(session).mark_started(name, process=f"{host}:{number}:{float(started) - 5}")
        with database.transaction() as session:
            assert ask(session, name) is not False
    assert (row("request_cancel").status, row("request_resume").status) == (Status.REVOKED, Status.PENDING)


def test_a_job_that_is_not_there(database: Database) -> None:
    for ask in (request_cancel, request_resume):
        with pytest.raises(NotFoundError), database.transaction() as session:
            ask(session, "nothing")
