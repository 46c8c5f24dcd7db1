"""Events of a run as a stream that can be taken up again: an event's id is its line in ``events.jsonl``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi.sse import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from loramill.api.services import AppServices
from loramill.errors import NotFoundError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import FINISHED
from loramill.jobs.job_tables import JobRow, find_job, kind_of, results_of

LOOK_SECONDS = 0.5


async def follow_events(services: AppServices, row: JobRow, *, after: int) -> AsyncIterator[ServerSentEvent]:
    """The events behind line ``after``, until the run has ended and its last one was sent."""
    place, line, seen_ended = 0, 0, False
    while True:
        ended = await run_in_threadpool(_has_ended, services, row)
        lines, place = await run_in_threadpool(_read_lines, services, row, place)
        for text in lines:
            line += 1
            event = _parse(text)
            if line > after and event is not None:
                yield ServerSentEvent(data=event, event=str(event.get("type", "event")), id=str(line))
        if seen_ended:
            return
        seen_ended = ended  # one more look: the last event is written just after the row
        await asyncio.sleep(LOOK_SECONDS)


def _has_ended(services: AppServices, row: JobRow) -> bool:
    with services.database.reading() as session:
        now = find_job(session, kind_of(row), row.id)
    return now is None or now.status in FINISHED


def _read_lines(services: AppServices, row: JobRow, place: int) -> tuple[list[bytes], int]:
    """Whole lines from byte ``place`` on, and where the next one begins; a line that is being written waits."""
    try:
        folder = ExperimentFolder.open(results_of(services.settings.results_folder, kind_of(row)), row.id)
        with folder.events_file.open("rb") as file:
            file.seek(place)
            content = file.read()
    except (FileNotFoundError, NotFoundError):
        return [], place
    whole = content[: content.rfind(b"\n") + 1]
    return whole.split(b"\n")[:-1], place + len(whole)


def _parse(line: bytes) -> dict[str, object] | None:
    """``None`` for a line that a kill tore."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
