from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from loramill.database import Database
from loramill.experiments.models import FINISHED, Status
from loramill.jobs.datasets import uses_of
from loramill.jobs.job_tables import SweepJob


@pytest.mark.parametrize("status", Status)
def test_what_a_sweep_will_train_on_is_in_use(status: Status, database: Database, submit: Callable[..., str]) -> None:
    submit()
    request = {"config": {"data": {"dataset_name": "version:aa+bb"}}}
    with database.transaction() as session:
        session.add(
            SweepJob(id="s", name="s", request=request, status=status, owner="u1", created_at=datetime.now(UTC))
        )
    with database.reading() as session:
        for stored_id in ("aa", "bb"):
            assert uses_of(session, [stored_id, "cc"], "u1") == ([] if status in FINISHED else ["s"])
            assert uses_of(session, [stored_id], "u2") == []
        assert uses_of(session, ["cc"]) == []
