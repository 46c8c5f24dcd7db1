"""Figures of a job that goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from loramill.client import Task
from loramill.ui.pages.tasks import seconds_left


def test_what_is_left_goes_by_the_time_of_training() -> None:
    """An hour in which the job had been cancelled would make it a hundred times as much."""
    started = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    progress = {"step": 20, "total_steps": 100, "train_seconds": 10.0}
    assert seconds_left(Task("t", "e", "PROGRESS", started_at=started, progress=progress)) == 40.0
    assert seconds_left(Task("t", "e", "STARTED", started_at=started)) is None
