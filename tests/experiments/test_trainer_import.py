from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loramill.database import Database
from loramill.errors import CorruptFileError, NotFoundError
from loramill.experiments.compare import compare_runs
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.store import ExperimentStore
from loramill.experiments.trainer_import import import_trainer_folder

STATE = {
    "train_batch_size": 8,
    "num_train_epochs": 2,
    "log_history": [
        {"step": 10, "epoch": 1.0, "loss": 0.6, "learning_rate": 1e-4, "grad_norm": 1.5},
        {"step": 10, "epoch": 1.0, "eval_loss": 0.5, "eval_accuracy": 0.7},
        {"step": 20, "epoch": 2.0, "loss": 0.4, "learning_rate": 0.0, "grad_norm": 1.1},
        {"step": 20, "epoch": 2.0, "eval_loss": 0.4, "eval_accuracy": 0.8},
        {"step": 20, "epoch": 2.0, "train_runtime": 33.0, "train_loss": 0.5},
    ],
}


def trainer_folder(path: Path, state: dict[str, Any] | str = STATE, *, checkpoint: str | None = None) -> Path:
    """What ``Trainer`` leaves, with a pickle that must never be opened."""
    place = path / checkpoint if checkpoint else path
    place.mkdir(parents=True, exist_ok=True)
    (place / "trainer_state.json").write_text(state if isinstance(state, str) else json.dumps(state))
    (place / "adapter_config.json").write_text('{"base_model_name_or_path": "bert-base-chinese"}')
    (place / "training_args.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/pickle-was-opened'\ntR.")
    return path


def test_a_long_name_is_cut_to_what_a_folder_may_be_called(tmp_path: Path, database: Database, results: Path) -> None:
    [found] = import_trainer_folder(database, results, trainer_folder(tmp_path / ("名" * 80)))
    assert found.startswith("名" * 66 + "_2")


def test_a_trainer_run_becomes_an_experiment(database: Database, results: Path, tmp_path: Path) -> None:
    [experiment_id] = import_trainer_folder(database, results, trainer_folder(tmp_path / "my run!"))
    with database.reading() as session:
        summary = ExperimentStore(session).get_summary(experiment_id)
    assert (summary.name, summary.model_name, summary.status) == ("my run!", "bert-base-chinese", "SUCCESS")
    assert (summary.source, summary.eval_accuracy, summary.train_runtime) == ("transformers", 0.8, 33.0)
    folder = ExperimentFolder.open(results, experiment_id)
    assert folder.read_config_tree()["training"]["per_device_train_batch_size"] == 8
    assert (folder.path / "record.json").is_file()
    comparison = compare_runs([folder, second_run(database, results, tmp_path)])
    assert comparison.curves["train_loss"][0] == ((10.0, 0.6), (20.0, 0.4))
    assert comparison.curves["eval_accuracy"][0] == ((10.0, 0.7), (20.0, 0.8))


def second_run(database: Database, results: Path, tmp_path: Path) -> ExperimentFolder:
    [experiment_id] = import_trainer_folder(database, results, trainer_folder(tmp_path / "second"))
    return ExperimentFolder.open(results, experiment_id)


def test_the_furthest_checkpoint_counts(database: Database, results: Path, tmp_path: Path) -> None:
    early = {"log_history": STATE["log_history"][:2]}
    trainer_folder(tmp_path / "run", early, checkpoint="checkpoint-9")
    trainer_folder(tmp_path / "run", checkpoint="checkpoint-20")
    [experiment_id] = import_trainer_folder(database, results, tmp_path / "run")
    with database.reading() as session:
        assert ExperimentStore(session).get_summary(experiment_id).eval_accuracy == 0.8


def test_a_folder_of_runs_comes_once(database: Database, results: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        trainer_folder(tmp_path / "runs" / name)
    assert len(import_trainer_folder(database, results, tmp_path / "runs")) == 2
    assert import_trainer_folder(database, results, tmp_path / "runs") == []


def test_values_that_are_no_numbers_are_left_out_and_counted(database: Database, results: Path, tmp_path: Path) -> None:
    history = [
        {"step": 10, "epoch": 1.0, "loss": float("nan"), "grad_norm": float("inf"), "learning_rate": 1e-4},
        {"step": 20, "epoch": 2.0, "loss": 0.4, "grad_norm": float("nan"), "learning_rate": 0.0},
        {"step": 20, "epoch": 2.0, "eval_loss": float("nan"), "eval_accuracy": 0.8, "eval_report": {"a": 1}},
        {"step": 20, "epoch": 2.0, "train_runtime": 33.0, "train_loss": "nan"},
    ]
    said: list[str] = []
    source = trainer_folder(tmp_path / "run", {"log_history": history})
    [experiment_id] = import_trainer_folder(database, results, source, warn=said.append)
    counts = "eval_loss (1), eval_report (1), grad_norm (2), loss (1), train_loss (1)"
    assert said == [f"run: left out 6 values that are no finite numbers: {counts}."]
    folder = ExperimentFolder.open(results, experiment_id)
    assert folder.read_metrics() == {"eval": {"accuracy": 0.8}, "train": {"runtime": 33.0}}
    assert [event.get("loss") for event in folder.read_events()] == [None, 0.4, None, None]
    assert import_trainer_folder(database, results, trainer_folder(tmp_path / "none", {"log_history": None}))


def test_what_is_wrong_is_named(database: Database, results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="trainer_state"):
        import_trainer_folder(database, results, tmp_path / "empty")
    with pytest.raises(CorruptFileError):
        import_trainer_folder(database, results, trainer_folder(tmp_path / "torn", '{"log_history": ['))
    assert import_trainer_folder(database, results, trainer_folder(tmp_path / "odd", {"log_history": [1, {}]}))
