"""A run, its repetition and its export, by the commands that people type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_runs import loramill, write_config
from loramill.experiments.folder import ExperimentFolder
from small_models import save_small_model
from small_runs import binary_row, small_config, write_rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one finished run, which was reported to TensorBoard."""
    home = tmp_path_factory.mktemp("home")
    model, rows = save_small_model("bert", home / "model"), write_rows(home / "rows", binary_row)
    config = small_config(model, rows, training__num_train_epochs=2, training__report_to=["tensorboard"])
    done = loramill(home, "train", write_config(home / "config.yaml", config), "--json")
    assert done.returncode == 0, done.stderr
    return home


def only_run(home: Path) -> ExperimentFolder:
    return ExperimentFolder(min((home / "results").glob("small_*")))


@pytest.mark.slow
def test_a_finished_run_has_its_report_its_record_and_its_trackers(home: Path) -> None:
    folder = only_run(home)
    assert "Learning curves" in folder.report_file.read_text(encoding="utf-8")
    assert json.loads((folder.path / "record.json").read_text())["status"] == "SUCCESS"
    assert list((folder.path / "tensorboard").glob("events.*"))
    assert (folder.plots / "loss.svg").is_file()


@pytest.mark.slow
def test_the_same_again_is_equal_bit_for_bit(home: Path) -> None:
    original = only_run(home)
    done = loramill(home, "reproduce", original.id, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["equal"], found["difference"], found["metrics"], found["same_data"]) == (True, 0.0, {}, True)
    shown = json.loads(loramill(home, "experiments", "show", found["repetition"], "--json").stdout)
    assert (shown["parent_id"], shown["parent_relation"]) == (original.id, "reproduce")


@pytest.mark.slow
def test_another_seed_is_not_equal(home: Path) -> None:
    original = only_run(home)
    config = original.read_config()
    original.write_config(config.replace("seed: 42", "seed: 43"))
    try:
        done = loramill(home, "reproduce", original.id)
    finally:
        original.write_config(config)
    assert done.returncode == 1
    assert "Not equal." in done.stdout


@pytest.mark.slow
def test_export_says_where_and_how_close(home: Path) -> None:
    done = loramill(home, "export", only_run(home).id, "--format", "merged", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["difference"] <= 1e-5
    assert (Path(found["folder"]) / "model.safetensors").is_file()
    again = loramill(home, "export", only_run(home).id, "--format", "merged")
    assert again.returncode == 1
    assert "exists already" in again.stderr
