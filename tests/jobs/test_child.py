"""The process that trains, as a worker starts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loramill.database import Database
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Experiment, Status
from loramill.jobs.supervise import Supervisor
from loramill.settings import Settings


def give_no_config(folder: Path) -> None:
    (folder / "config.yaml").write_text("lora: {r: ")


def give_no_log(folder: Path) -> None:
    (folder / "logs.txt").mkdir()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "code", "named"),
    [(give_no_config, "config_invalid", "is not YAML"), (give_no_log, "storage_failed", "logs.txt")],
)
def test_an_error_before_the_record_is_open_ends_the_job_under_its_own_name(
    spoil: Callable[[Path], None], code: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    database: Database, submit: Callable[..., str], row: Callable[..., Experiment],
) -> None:  # fmt: skip
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    folder = ExperimentFolder(tmp_path / "results" / "job")
    folder.path.mkdir(parents=True)
    spoil(folder.path)
    submit()
    settings = Settings(home=tmp_path)  # type: ignore[call-arg]
    Supervisor(settings, database, worker="w", draining=lambda: False).do_next("job")
    assert (row().status, row().error_code, row().attempt) == (Status.FAILURE, code, 1)
    assert named in str(row().error_message)
    assert [event["status"] for event in folder.read_events()] == ["FAILURE"]
