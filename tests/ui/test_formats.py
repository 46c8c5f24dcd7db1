"""Times are shown, and asked for, in the zone of whoever reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import streamlit as st

from loramill.api.services import AppServices
from loramill.experiments.store import ExperimentStore
from loramill.ui.formats import moment, when
from loramill.ui.texts import read_texts
from ui_pages import AddRun, Shows, SignsIn, seen

LATE = datetime(2026, 3, 1, 20, 30, tzinfo=UTC)
"""Already the second of March in Taipei."""


@pytest.fixture
def reads_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has the reader's browser name a zone."""

    def read(zone: str | None) -> None:
        monkeypatch.setattr(type(st.context), "timezone", property(lambda _context: zone))

    return read


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("Asia/Taipei", "2026-03-02 04:30:00"),
        ("America/St_Johns", "2026-03-01 17:00:00"),
        ("UTC", "2026-03-01 20:30:00"),
        (None, "2026-03-01 20:30:00"),
        ("Nowhere/City", "2026-03-01 20:30:00"),
        ("../etc/passwd", "2026-03-01 20:30:00"),
    ],
)
def test_a_time_is_shown_in_the_readers_zone(zone: str | None, shown: str, reads_in: Any) -> None:
    reads_in(zone)
    assert when("2026-03-01T20:30:00+00:00") == when("2026-03-01T20:30:00") == shown
    assert moment("2026-03-01T20:30:00Z") == LATE
    assert moment(None) is None


def test_experiments_are_listed_and_filtered_by_the_readers_days(
    shows: Shows, sign_in: SignsIn, add_run: AddRun, services: AppServices, reads_in: Any
) -> None:
    person = sign_in("traveller")
    run = add_run(person.user_id, "late")
    with services.database.transaction() as session:
        ExperimentStore(session).get(run).created_at = LATE
    reads_in("Asia/Taipei")
    for day, listed in (("2026-03-01", 0), ("2026-03-02", 1)):
        test = shows("experiments", person, since=day, until=day)
        assert len(test.dataframe) == listed
    (created,) = test.dataframe[0].value[read_texts("en")["column.created"]]
    assert f"{created:%Y-%m-%d %H:%M}" == "2026-03-02 04:30"
    assert "2026-03-02 04:30:00" in seen(shows("experiment", person, id=run))
    reads_in("UTC")
    assert len(shows("experiments", person, since="2026-03-01", until="2026-03-01").dataframe) == 1
