"""Trackers against the real thing: MLflow's and TensorBoard's own readers see what was sent, and MLflow comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import NotFoundError, UnavailableError
from loramill.experiments.curves import read_curves
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.mlflow_import import import_mlflow
from loramill.experiments.store import ExperimentStore
from loramill.experiments.trackers import TRACKERS, Trackers, numbers_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, on this SQLAlchemy

EVENTS = [
    {"type": "status", "status": "STARTED"},
    {"type": "log", "time": 1.0, "step": 10, "total_steps": 20, "epoch": 0.5, "loss": 0.6, "learning_rate": 1e-3},
    {"type": "log", "time": 2.0, "step": 20, "total_steps": 20, "epoch": 1.0, "loss": float("nan"), "grad_norm": 2.0},
    {"type": "eval", "time": 3.0, "step": 20, "epoch": 1.0, "metrics": {"eval_accuracy": 0.8, "per_class": {}}},
]
METRICS = {"train": {"runtime": 12.0, "loss": 0.5}, "eval": {"accuracy": 0.9, "f1_macro": 0.75}}


@pytest.fixture
def folder(results: Path) -> ExperimentFolder:
    return ExperimentFolder.create(results, "tracked", datetime(2026, 1, 1))


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    yield uri
    del os.environ["MLFLOW_TRACKING_URI"]
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


def report(names: list[str], folder: ExperimentFolder, status: str = "SUCCESS") -> list[str]:
    """Send a whole run; returns the warnings."""
    warnings: list[str] = []
    trackers = Trackers(names, folder, ExperimentConfig().model_dump(mode="json"), warnings.append)
    for event in EVENTS:
        trackers.on_event(event)
    trackers.finish(METRICS, status=status)
    return warnings


def test_numbers_of_events() -> None:
    numbers = [numbers_of(event) for event in EVENTS]
    assert numbers == [
        {},
        {"train_loss": 0.6, "train_learning_rate": 1e-3},
        {"train_grad_norm": 2.0},
        {"eval_accuracy": 0.8},
    ]


def test_an_unmodified_mlflow_client_reads_the_run_and_it_comes_back(
    mlflow_uri: str, folder: ExperimentFolder, results: Path
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_uri)
    assert report(["mlflow"], folder, "REVOKED") == []
    [run] = client.search_runs([client.get_experiment_by_name("loramill").experiment_id])
    assert run.info.status == "KILLED"
    assert report(["mlflow"], folder) == []
    [run] = client.search_runs([client.get_experiment_by_name("loramill").experiment_id])
    assert run.info.run_name == folder.id
    assert run.info.status == "FINISHED"
    assert run.data.params["training.learning_rate"] == "0.0005"
    assert run.data.metrics["eval_f1_macro"] == 0.75
    assert (run.data.metrics["eval_accuracy"], run.data.metrics["train_loss"]) == (0.9, 0.5)  # of the final model
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in history] == [(10, 0.6), (20, 0.5)] * 2  # stopped, and gone on with

    database = Database(f"sqlite:///{results / 'experiments.db'}")
    database.upgrade()
    [experiment_id] = import_mlflow(database, results, mlflow_uri, experiment_name="loramill")
    with database.reading() as session:
        summary = ExperimentStore(session).get_summary(experiment_id)
    assert (summary.name, summary.source, summary.status) == (folder.id, "mlflow", "SUCCESS")
    assert (summary.eval_accuracy, summary.train_runtime) == (0.9, 12.0)
    assert summary.model_name == "distilbert-base-uncased"
    imported = ExperimentFolder.open(results, experiment_id)
    assert imported.read_config_tree()["training"]["learning_rate"] == "0.0005"
    assert read_curves(imported.read_events())["eval_accuracy"][-1] == (20.0, 0.9)
    assert import_mlflow(database, results, mlflow_uri) == []
    with pytest.raises(NotFoundError, match="loramill"):
        import_mlflow(database, results, mlflow_uri, experiment_name="no such")
    database.close()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "ftp://127.0.0.1/mlflow", "sqlite:///{notes}"])
def test_an_mlflow_that_cannot_be_read_is_named(
    uri: str, tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    notes = tmp_path / "notes.db"
    notes.write_text("not a database " * 100)
    database = Database(f"sqlite:///{results / 'experiments.db'}")
    with pytest.raises(UnavailableError, match=r"MLflow at .* cannot be read"):
        import_mlflow(database, results, uri.format(notes=notes))
    database.close()


def test_tensorboard_reads_the_run(folder: ExperimentFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert report(["tensorboard"], folder) == []
    reader = EventAccumulator(str(folder.path / "tensorboard"))
    reader.Reload()
    assert [(e.step, e.value) for e in reader.Scalars("train/loss")] == [(10, pytest.approx(0.6)), (20, 0.5)]
    assert reader.Scalars("eval/f1_macro")[-1].value == 0.75


def test_a_tracker_that_fails_is_left_behind(folder: ExperimentFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Any] = []

    class Broken:
        def log(self, numbers: object, step: int) -> None:
            raise ConnectionError("the server is gone")

        def finish(self, numbers: object, *, status: str) -> None:
            raise AssertionError("not asked again")

    class Whole:
        def log(self, numbers: object, step: int) -> None:
            received.append((step, numbers))

        def finish(self, numbers: object, *, status: str) -> None:
            received.append(status)

    monkeypatch.setitem(TRACKERS, "mlflow", lambda folder, config: Broken())
    monkeypatch.setitem(TRACKERS, "wandb", lambda folder, config: Whole())
    [warning] = report(["mlflow", "wandb"], folder)
    assert warning == "mlflow no longer receives this run: ConnectionError: the server is gone"
    assert len(received) == 4
    assert received[-1] == "SUCCESS"


def test_a_tracker_that_cannot_be_reached_is_left_out(
    folder: ExperimentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(folder: object, config: object) -> Any:
        raise ConnectionError("nobody answers")

    monkeypatch.setitem(TRACKERS, "wandb", unreachable)
    assert report(["wandb"], folder) == ["wandb does not receive this run: ConnectionError: nobody answers"]


def test_a_missing_package_is_named_before_the_run(folder: ExperimentFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(folder: object, config: object) -> Any:
        import no_such_package  # noqa: F401

    monkeypatch.setitem(TRACKERS, "wandb", missing)
    with pytest.raises(NotFoundError, match="wandb"):
        report(["wandb"], folder)


@pytest.mark.slow
def test_wandb_offline(folder: ExperimentFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="an extra that the tests do not install")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert report(["wandb"], folder) == []
    assert list((folder.path / "wandb").glob("offline-run-*/*.wandb"))
