"""For those who run the service: whether it lives, whether it can work, and its numbers."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse
from redis import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from loramill.api.dependencies import may_read_metrics
from loramill.api.services import AppServices, Services
from loramill.errors import UnavailableError
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.store import ExperimentStore
from loramill.monitor.prometheus import CONTENT_TYPE, render_service_metrics
from loramill.tasks.worker import queue_length

router = APIRouter(tags=["health"])

log = logging.getLogger(__name__)


@router.get("/health/live")
def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/health/ready")
def ready(services: Services) -> dict[str, str]:
    """Database and queue answer."""
    try:
        with services.database.reading() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        log.warning("The database does not answer: %s", error)
        raise UnavailableError("The database does not answer.") from error
    if _queue_length(services) is None:
        raise UnavailableError("The queue does not answer.")
    return {"status": "ok"}


@router.get("/metrics", response_class=PlainTextResponse, dependencies=[Depends(may_read_metrics)])
def metrics(services: Services) -> Response:
    """Numbers for Prometheus; with `LORAMILL_METRICS_KEY`, for who sends it as a bearer token, and administrators."""
    with services.database.reading() as session:
        totals = ExperimentStore(session).statistics(ExperimentFilter(archived=None))
    content = render_service_metrics(totals.by_status, _queue_length(services))
    return Response(content, media_type=CONTENT_TYPE)


def _queue_length(services: AppServices) -> int | None:
    try:
        return queue_length(services.broker)
    except RedisError:
        return None
