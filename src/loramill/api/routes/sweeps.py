"""Sweeps: many trials on one base as one job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from loramill.api.dependencies import NAME, Address, User
from loramill.api.event_stream import follow_events
from loramill.api.routes.experiments import REPORT_POLICY
from loramill.api.routes.tasks import IdempotencyKey
from loramill.api.schemas import CancelReply, PageQuery
from loramill.api.services import AppServices, Services
from loramill.api.submitted_config import check_submitted
from loramill.api.sweep_schemas import SweepAccepted, SweepDetails, SweepPage, SweepReply, SweepRequest, TrialReply
from loramill.auth.permissions import CurrentUser, check_task_owner
from loramill.config.load import parse_config
from loramill.config.schema import ExperimentConfig
from loramill.errors import ConfigError, NotFoundError, Problem
from loramill.jobs.control import request_cancel, request_resume
from loramill.jobs.job_tables import JobKind, SweepJob, find_job
from loramill.jobs.submit_sweep import SweepSubmission, count_trials, list_sweeps, submit_sweep_for_user, trials_of
from loramill.jobs.sweep import Sweep, trial_config
from loramill.sweeps.search import Search
from loramill.sweeps.space import Choice, choose_trials, parse_space

router = APIRouter(prefix="/sweeps", tags=["sweeps"])

MAX_TRIALS = 1000
FIXED = ("data.dataset_name", "training.output_dir")
"""Keys that are the same for all trials over the network: what they name was checked for the sweep as a whole."""


def own_sweep(services: Services, user: User, sweep_id: Annotated[str, Path(pattern=NAME)]) -> SweepJob:
    """The row of a sweep that the user may see."""
    with services.database.reading() as session:
        row = find_job(session, JobKind.SWEEP, sweep_id)
    if not isinstance(row, SweepJob):
        raise NotFoundError("There is no such sweep.", fix="List yours: GET /sweeps")
    check_task_owner(user, row.owner)
    return row


OwnSweep = Annotated[SweepJob, Depends(own_sweep)]


@router.post("", status_code=202)
def submit(
    body: SweepRequest, user: User, services: Services, address: Address, idempotency_key: IdempotencyKey = None
) -> SweepAccepted:
    """Submit a sweep as one job. The same `Idempotency-Key` again gives the same sweep."""
    services.auth.limits.check_submit(user.id)
    config = check_submitted(parse_config(body.config, source="config"), user, services.database)
    search = body.search(config.training.seed)
    _check_trials(config, search, user, services)
    row = submit_sweep_for_user(
        SweepSubmission(
            config, search, body.chosen_halving(), user.actor(address), body.priority, idempotency_key=idempotency_key
        ),
        settings=services.settings,
        database=services.database,
        audit=services.auth.audit,
        enqueue=services.publisher.publish,
    )
    return SweepAccepted(sweep_id=row.id)


@router.get("")
def sweeps(query: Annotated[PageQuery, Query()], user: User, services: Services) -> SweepPage:
    """Your sweeps, newest first; an administrator sees everybody's."""
    owner = None if user.is_admin else user.id
    with services.database.reading() as session:
        rows = list_sweeps(session, owner=owner, before=query.cursor, limit=query.limit + 1)
        counts = count_trials(session, [row.id for row in rows])
    items = [SweepReply.of(row, counts[row.id]) for row in rows[: query.limit]]
    return SweepPage(items=items, next_cursor=str(rows[query.limit - 1].number) if len(rows) > query.limit else None)


@router.get("/{sweep_id}")
def sweep(row: OwnSweep, services: Services) -> SweepDetails:
    """How a sweep is, and its best trial so far."""
    with services.database.reading() as session:
        counts = count_trials(session, [row.id])
    return SweepDetails.with_best(row, counts[row.id], Sweep.load(services.settings, row.id))


@router.get("/{sweep_id}/trials")
def trials(row: OwnSweep, services: Services) -> list[TrialReply]:
    """Every trial: what it tries, how it is, and its score once it is known."""
    with services.database.reading() as session:
        return [TrialReply.of(trial) for trial in trials_of(session, Sweep.load(services.settings, row.id))]


@router.get("/{sweep_id}/report", response_class=FileResponse)
def report(row: OwnSweep, services: Services) -> FileResponse:
    """The page of a sweep: its trials as a table and as plots."""
    file = Sweep.load(services.settings, row.id).folder(services.settings) / "report.html"
    if not file.is_file():
        raise NotFoundError("The sweep has no report.", fix="It is written when the sweep has finished.")
    return FileResponse(file, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/{sweep_id}/events", response_class=EventSourceResponse)
async def events(
    row: OwnSweep, services: Services, last_event_id: Annotated[int, Header(ge=0, le=2**53)] = 0
) -> AsyncIterator[ServerSentEvent]:
    """How a sweep goes on, as it happens; each trial has events of its own under `/task/{experiment_id}/events`."""
    async for event in follow_events(services, row, after=last_event_id):
        yield event


@router.post("/{sweep_id}/cancel", status_code=202)
def cancel(row: OwnSweep, user: User, services: Services, address: Address) -> CancelReply:
    """End a sweep with all its trials: at once while it waits, within ten seconds while it runs."""
    with services.auth.audit.transaction(user.actor(address), "sweep.cancel", row.id) as session:
        accepted = request_cancel(session, row.id, JobKind.SWEEP)
    return CancelReply(task_id=row.id, accepted=accepted)


@router.post("/{sweep_id}/resume", status_code=202)
def resume(row: OwnSweep, user: User, services: Services, address: Address) -> SweepAccepted:
    """Let a sweep that failed or was cancelled go on from its last checkpoints."""
    services.auth.limits.check_submit(user.id)
    with services.auth.audit.transaction(user.actor(address), "sweep.resume", row.id) as session:
        request_resume(session, row.id, JobKind.SWEEP)
    services.publisher.publish(row.id)
    return SweepAccepted(sweep_id=row.id)


def _check_trials(config: ExperimentConfig, search: Search, user: CurrentUser, services: AppServices) -> None:
    """Refuse a sweep of which any trial would be refused, by itself or because of who asks.

    Raises:
        ConfigError: the space is unclear or too large, or a value is not allowed.
    """
    space = parse_space(search.space)
    problems = [
        Problem(dimension.key, None, "is the same for all trials here")
        for dimension in space.dimensions
        if dimension.key in FIXED
    ]
    tries_all = search.trials is None and search.sampler != "tpe" and not space.ranged
    if tries_all and (space.combinations or 0) > MAX_TRIALS:
        problems.append(Problem("trials", space.combinations, f"at most {MAX_TRIALS} here"))
    if problems:
        raise ConfigError(problems, source="space")
    if search.sampler != "tpe":
        for number, overrides in enumerate(choose_trials(space, search.sampler, search.trials, search.seed), start=1):
            trial_config(config, overrides, number)
    for dimension in space.dimensions:
        for value in dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high):
            check_submitted(trial_config(config, {dimension.key: value}, 1), user, services.database)
