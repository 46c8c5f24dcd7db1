"""Submitting work, and what becomes of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from loramill.api.dependencies import Address, OwnTask, User, folder_of
from loramill.api.event_stream import follow_events
from loramill.api.schemas import CancelReply, TaskPage, TaskQuery, TaskReply, TrainReply, TrainRequest
from loramill.api.services import Services
from loramill.api.submitted_config import check_submitted
from loramill.config.load import parse_config
from loramill.errors import LoramillError
from loramill.experiments.models import Status
from loramill.experiments.record_file import save_record
from loramill.jobs.control import request_cancel, request_resume
from loramill.jobs.submit import Submission, list_tasks, submit_for_user

router = APIRouter(tags=["tasks"])

log = logging.getLogger(__name__)

IdempotencyKey = Annotated[str | None, Header(max_length=255, pattern=r"^[\x21-\x7e]+$")]


@router.post("/train", status_code=202)
def train(
    body: TrainRequest, user: User, services: Services, address: Address, idempotency_key: IdempotencyKey = None
) -> TrainReply:
    """Submit a run. The same `Idempotency-Key` again gives the same task."""
    services.auth.limits.check_submit(user.id)
    config = parse_config(body.config, source="config")
    config = check_submitted(config, user, services.database)
    submission = Submission(config, user.actor(address), priority=body.priority, idempotency_key=idempotency_key)
    accepted = submit_for_user(
        submission,
        settings=services.settings,
        database=services.database,
        audit=services.auth.audit,
        enqueue=services.publisher.publish,
    )
    return TrainReply(task_id=accepted.task_id, experiment_id=accepted.experiment_id)


@router.get("/tasks")
def tasks(query: Annotated[TaskQuery, Query()], user: User, services: Services) -> TaskPage:
    """Your tasks, newest first; an administrator sees everybody's."""
    owner = None if user.is_admin else user.id
    with services.database.reading() as session:
        rows = list_tasks(session, owner=owner, status=query.status, before=query.cursor, limit=query.limit + 1)
    more = str(rows[query.limit - 1].number) if len(rows) > query.limit else None
    return TaskPage(items=[TaskReply.of(row) for row in rows[: query.limit]], next_cursor=more)


@router.get("/task/{task_id}")
def task(row: OwnTask, services: Services) -> TaskReply:
    """How a task is."""
    result = folder_of(services, row).read_metrics() if row.status == Status.SUCCESS else None
    return TaskReply.of(row, result)


@router.get("/task/{task_id}/events", response_class=EventSourceResponse)
async def events(
    row: OwnTask, services: Services, last_event_id: Annotated[int, Header(ge=0, le=2**53)] = 0
) -> AsyncIterator[ServerSentEvent]:
    """Every event of the run as it is written, ended by the last one; `Last-Event-ID` goes on behind that one."""
    async for event in follow_events(services, row, after=last_event_id):
        yield event


@router.post("/task/{task_id}/cancel", status_code=202)
def cancel(row: OwnTask, user: User, services: Services, address: Address) -> CancelReply:
    """End a task: at once while it waits, within ten seconds while it runs. Its last checkpoint stays."""
    with services.auth.audit.transaction(user.actor(address), "task.cancel", row.id) as session:
        accepted = request_cancel(session, row.id)
    try:
        save_record(services.database, services.settings.results_folder, row.id)
    except LoramillError as error:  # it is cancelled all the same
        log.warning("The record of %s was not saved: %s", row.id, error)
    return CancelReply(task_id=row.task_id or row.id, accepted=accepted)


@router.post("/task/{task_id}/resume", status_code=202)
def resume(row: OwnTask, user: User, services: Services, address: Address) -> TrainReply:
    """Let a task that failed or was cancelled go on from its last checkpoint."""
    services.auth.limits.check_submit(user.id)
    with services.auth.audit.transaction(user.actor(address), "task.resume", row.id) as session:
        request_resume(session, row.id)
    services.publisher.publish(row.id)
    return TrainReply(task_id=row.task_id or row.id, experiment_id=row.id)
