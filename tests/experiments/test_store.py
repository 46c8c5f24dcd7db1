from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import ConfigError, ConflictError, NotFoundError
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.models import DataLink, Status
from loramill.experiments.registry import ModelRegistry
from loramill.experiments.store import ExperimentStore, NewExperiment
from loramill.process_ends import process_name

METRICS = {"train": {"runtime": 12.5}, "eval": {"accuracy": 0.8, "f1_macro": 0.7}}


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.transaction() as session:
        yield session


@pytest.fixture
def store(session: Session) -> ExperimentStore:
    return ExperimentStore(session)


def add(store: ExperimentStore, experiment_id: str = "a", **known: object) -> None:
    config = ExperimentConfig.model_validate(known.pop("config", {}))
    store.create(NewExperiment.from_config(experiment_id, config, **known))


def test_a_long_path_fits_the_columns_of_lists_and_stays_whole_in_the_config(store: ExperimentStore) -> None:
    path = "/data/" + "deep/" * 80
    add(store, config={"data": {"dataset_name": path}, "model": {"name": path}})
    assert store.get_summary("a").dataset_name == store.get_summary("a").model_name == path[:255]
    assert store.get("a").config["data"]["dataset_name"] == path


def test_a_run_from_submission_to_success(store: ExperimentStore) -> None:
    add(store, owner="u1", config={"data": {"dataset_name": "glue", "dataset_config": "sst2"}})
    assert store.get("a").status == Status.PENDING
    store.mark_started("a")
    store.mark_progress("a", {"step": 5, "total_steps": 10})
    assert store.get_summary("a").progress == {"step": 5, "total_steps": 10}
    store.mark_finished("a", METRICS)
    summary = store.get_summary("a")
    assert (summary.status, summary.dataset_name, summary.owner) == (Status.SUCCESS, "glue/sst2", "u1")
    assert summary.metrics == {"train_runtime": 12.5, "eval_accuracy": 0.8, "eval_f1_macro": 0.7}
    assert (summary.train_runtime, summary.eval_accuracy) == (12.5, 0.8)
    assert summary.created_at <= summary.started_at <= summary.finished_at
    assert summary.created_at.utcoffset() == timedelta(0)
    assert store.get("a").config["data"]["dataset_config"] == "sst2"


def test_failure_keeps_its_reason(store: ExperimentStore) -> None:
    add(store)
    store.mark_failed("a", "out_of_memory", "The GPU is full.")
    summary = store.get_summary("a")
    assert (summary.status, summary.error_code, summary.error_message) == (
        "FAILURE",
        "out_of_memory",
        "The GPU is full.",
    )


def test_what_is_finished_does_not_change(store: ExperimentStore) -> None:
    add(store)
    store.mark_revoked("a")
    for change in (store.mark_started, store.mark_revoked, store.mark_progress):
        with pytest.raises(ConflictError, match="REVOKED"):
            change("a")
    store.mark_resumed("a")
    store.mark_finished("a", METRICS)
    assert store.get("a").status == Status.SUCCESS


def test_what_a_worker_has_or_will_take_is_not_resumed_beside_it(store: ExperimentStore) -> None:
    add(store)
    store.get("a").task_id = "u1_7"
    for mark in (None, store.mark_started, store.mark_progress):
        if mark:
            mark("a")
        with pytest.raises(ConflictError, match="queue"):
            store.mark_resumed("a")
    store.mark_failed("a", "out_of_memory", "The GPU is full.")
    store.mark_resumed("a")


def test_an_old_attempt_may_not_write(store: ExperimentStore) -> None:
    add(store)
    store.mark_started("a")
    store.get("a").attempt = 2
    with pytest.raises(ConflictError, match="attempt 2"):
        store.mark_finished("a", METRICS, attempt=1)
    assert store.get_summary("a").metrics == {}
    store.mark_finished("a", METRICS, attempt=2)


def test_an_attempt_whose_job_waits_for_the_next_worker_may_not_write(store: ExperimentStore) -> None:
    add(store)
    store.get("a").attempt = 1
    with pytest.raises(ConflictError, match="PENDING"):
        store.mark_progress("a", {"step": 3}, attempt=1)


def test_an_id_names_one_experiment(store: ExperimentStore) -> None:
    add(store)
    with pytest.raises(NotFoundError, match="nothing"):
        store.get("nothing")
    with pytest.raises(ConflictError):
        add(store)


def test_newest_success(store: ExperimentStore) -> None:
    assert store.newest() is None
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for hours, experiment_id in ((1, "old"), (3, "failed"), (2, "new")):
        add(store, experiment_id, created_at=start + timedelta(hours=hours))
        store.mark_failed(experiment_id, "x", "") if experiment_id == "failed" else store.mark_finished(
            experiment_id, METRICS
        )
    assert store.newest().id == "new"


def test_tags_notes_and_archive(store: ExperimentStore) -> None:
    add(store)
    store.add_tags("a", ["b", " a ", "b"])
    store.set_notes("a", "good\nrun")
    store.set_archived("a", True)
    summary = store.get_summary("a")
    assert (summary.tags, summary.notes, summary.archived) == (("a", "b"), "good\nrun", True)
    store.remove_tags("a", ["b", "unknown"])
    assert store.get_summary("a").tags == ("a",)
    assert store.list_page().items == ()
    assert len(store.list_page(ExperimentFilter(archived=None)).items) == 1


def test_every_wrong_tag_is_named(store: ExperimentStore) -> None:
    add(store)
    with pytest.raises(ConfigError) as caught:
        store.add_tags("a", ["fine", "", "x" * 256, "nul\0", "half \ud800"])
    assert len(caught.value.problems) == 4
    assert store.get_summary("a").tags == ()


def test_texts_that_no_database_can_hold(store: ExperimentStore) -> None:
    add(store)
    with pytest.raises(ConfigError, match="notes"):
        store.set_notes("a", "nul\0")
    assert store.find("nul\0") is None
    store.mark_failed("a", "x", "the message\0 of a library")
    assert store.get_summary("a").error_message == "the message of a library"


def test_an_experiment_has_data_versions_by_role(store: ExperimentStore) -> None:
    add(store, "a")
    add(store, "b")
    store.link_data("a", "train", ["v1", "v2"])
    store.link_data("a", "train", ["v1"])
    store.link_data("a", "eval", ["v3"])
    store.link_data("b", "eval", ["v1"])
    assert store.data_of("a") == {"eval": ["v3"], "train": ["v1", "v2"]}


def test_delete_takes_everything_with_it(store: ExperimentStore, session: Session) -> None:
    add(store)
    store.mark_finished("a", METRICS)
    store.add_tags("a", ["t"])
    store.link_data("a", "train", ["v1"])
    ModelRegistry(session).set_stage("a", "staging", by="me")
    store.delete("a")
    session.expunge_all()
    assert store.find("a") is None
    assert session.scalars(select(DataLink)).all() == []
    add(store)
    assert store.get_summary("a").metrics == {}


@pytest.mark.parametrize("hold", ["running", "production", "alias"])
def test_what_is_in_use_is_not_deleted(store: ExperimentStore, session: Session, hold: str) -> None:
    add(store)
    if hold == "running":
        store.mark_started("a")
    else:
        store.mark_finished("a", METRICS)
        registry = ModelRegistry(session)
        registry.set_stage("a", "production", by="me") if hold == "production" else registry.set_alias(
            "best", "a", by="me"
        )
    with pytest.raises(ConflictError):
        store.delete("a")
    assert store.find("a") is not None


def test_a_run_whose_process_was_killed_is_deleted(store: ExperimentStore) -> None:
    host, number, started = process_name().split(":")
    add(store)
    store.mark_started("a", process=f"{host}:{number}:{started}")
    with pytest.raises(ConflictError):
        store.delete("a")
    store.mark_started("a", process=f"another-machine:{number}:{started}")
    with pytest.raises(ConflictError):
        store.delete("a")
    store.mark_started("a", process=f"{host}:{number}:{float(started) - 5}")
    store.delete("a")
    assert store.find("a") is None


def test_a_run_that_another_shell_is_at_work_on_is_not_resumed(store: ExperimentStore) -> None:
    add(store)
    store.mark_started("a", process=process_name())
    with pytest.raises(ConflictError, match="is at work on it"):
        store.mark_resumed("a")


def test_a_run_that_is_resumed_at_the_shell_has_no_lease_of_its_last_worker(store: ExperimentStore) -> None:
    add(store)
    store.get("a").worker, store.get("a").lease_until = "w", datetime.now(UTC)
    store.get("a").cancel_requested = True
    store.mark_revoked("a")
    store.mark_resumed("a")
    assert (store.get("a").worker, store.get("a").lease_until, store.get("a").cancel_requested) == (None, None, False)
