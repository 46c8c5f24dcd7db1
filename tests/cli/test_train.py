"""``loramill train`` as people and scripts start it: in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli_runs import loramill, loramill_forked, start_loramill, write_config
from loramill.database import Database
from loramill.experiments.store import ExperimentStore
from loramill.settings import Settings
from small_models import save_small_model
from small_runs import small_config, write_rows


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model`` and ``rows``."""
    folder = tmp_path_factory.mktemp("given")
    save_small_model("bert", folder / "model")
    write_rows(folder / "rows")
    return folder


def config_file(given: Path, home: Path, **changes: object) -> Path:
    return write_config(home / "config.yaml", small_config(given / "model", given / "rows", **changes))


def row_of(home: Path, experiment_id: str) -> Any:
    database = Database(Settings(home=home).effective_database_url)
    with database.reading() as session:
        row = ExperimentStore(session).get(experiment_id)
        found = {"status": row.status, "error_code": row.error_code}
    database.close()
    return found


def test_json_is_one_document_on_stdout_and_all_else_is_on_stderr(given: Path, tmp_path: Path) -> None:
    finished = loramill(tmp_path, "train", config_file(given, tmp_path), "--json", "--num-train-epochs", "2")
    assert finished.returncode == 0, finished.stderr
    document = json.loads(finished.stdout)
    assert set(document) == {"experiment_id", "folder", "status", "metrics"}
    assert document["status"] == "SUCCESS"
    assert document["metrics"]["train"]["epochs"] == 2.0
    folder = Path(document["folder"])
    assert folder == tmp_path / "results" / document["experiment_id"]
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == document["metrics"]
    assert "step 12/12  evaluation: loss" in finished.stderr
    assert all("Traceback" not in line and "\x1b" not in line for line in finished.stderr.splitlines())
    assert row_of(tmp_path, document["experiment_id"])["status"] == "SUCCESS"


def test_people_get_plain_lines_and_a_table(given: Path, tmp_path: Path) -> None:
    finished = loramill(tmp_path, "train", config_file(given, tmp_path), "--set", "training.num_train_epochs=1")
    assert finished.returncode == 0, finished.stderr
    (folder,) = (tmp_path / "results").glob("small_*")
    said = " ".join(finished.stdout.split())
    assert "accuracy" in said
    assert "final_model" in said
    lines = finished.stderr.splitlines()
    assert "Training 3,138 parameters on 96 rows." in lines
    log = (folder / "logs.txt").read_text(encoding="utf-8")
    assert "step 6/6  evaluation: loss" in log
    assert "Saved checkpoint-6" in log


def wait_for_a_checkpoint(process: subprocess.Popen[str], home: Path) -> Path:
    while not (found := list(home.glob("results/*/artifacts/checkpoint-*"))):
        if process.poll() is not None:
            pytest.fail(f"ended before the first checkpoint: {process.communicate()}")
        time.sleep(0.01)
    return found[0].parent.parent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_saves_a_checkpoint_and_leaves_with_130(number: signal.Signals, given: Path, tmp_path: Path) -> None:
    config = config_file(given, tmp_path, training__num_train_epochs=3000, training__save_steps=5)
    process = start_loramill(tmp_path, "train", config, "--json")
    folder = wait_for_a_checkpoint(process, tmp_path)
    started = time.monotonic()
    os.killpg(process.pid, number)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert time.monotonic() - started < 30
    document = json.loads(printed)
    assert (document["status"], document["metrics"]) == ("REVOKED", {})
    assert f"loramill train --resume {folder.name}" in said
    assert row_of(tmp_path, folder.name)["status"] == "REVOKED"
    last = json.loads((folder / "artifacts" / "checkpoints.json").read_text(encoding="utf-8"))["last"]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["path"] for event in events if event["type"] == "checkpoint"][-1] == last


def test_a_second_ctrl_c_ends_at_once_and_is_recorded(given: Path, tmp_path: Path) -> None:
    config = config_file(given, tmp_path, training__num_train_epochs=10_000)
    process = start_loramill(tmp_path, "train", config)
    folder = wait_for_a_checkpoint(process, tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert row_of(tmp_path, folder.name)["status"] == "REVOKED"


def test_a_run_that_was_killed_can_be_deleted(given: Path, tmp_path: Path) -> None:
    config = config_file(given, tmp_path, training__num_train_epochs=10_000)
    process = start_loramill(tmp_path, "train", config)
    folder = wait_for_a_checkpoint(process, tmp_path)
    at_work = loramill(tmp_path, "experiments", "delete", "--yes", folder.name)
    assert (at_work.returncode, folder.is_dir()) == (1, True), at_work.stderr
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    killed = loramill(tmp_path, "experiments", "delete", "--yes", folder.name)
    assert (killed.returncode, folder.exists()) == (0, False), killed.stderr


def test_a_stopped_run_resumes_and_says_so(given: Path, tmp_path: Path) -> None:
    config = config_file(given, tmp_path, training__num_train_epochs=3000, training__max_seconds=0.2)
    stopped = loramill(tmp_path, "train", config, "--json", "--output_dir", "elsewhere")
    assert stopped.returncode == 0, stopped.stderr
    document = json.loads(stopped.stdout)
    assert document["status"] == "REVOKED"
    assert f"Stopped (time_limit). Go on with: loramill train --resume {document['experiment_id']} --output_dir" in (
        stopped.stderr
    )
    again = loramill(tmp_path, "train", "--resume", document["experiment_id"], "--output_dir", "elsewhere")
    assert "Resumed from checkpoint-" in again.stderr
    assert again.returncode == 0


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is_and_found_wherever_it_lies(given: Path, tmp_path: Path) -> None:
    config = config_file(given, tmp_path, training__num_train_epochs=1)
    trained = json.loads(loramill(tmp_path, "train", config, "--json", "--output_dir", "elsewhere").stdout)
    named = trained["experiment_id"]
    model = Path(trained["folder"]) / "artifacts" / "final_model" / "adapter_model.safetensors"
    before = model.stat().st_mtime_ns
    again = loramill(tmp_path, "train", "--resume", named, "--output_dir", "elsewhere", "--json")
    assert (again.returncode, json.loads(again.stdout)) == (0, trained)
    assert "has finished already" in again.stderr
    assert (model.stat().st_mtime_ns, row_of(tmp_path, named)["status"]) == (before, "SUCCESS")
    for command in (["predict", named, "a b", "--json"], ["export", named, "--format", "adapter", "--json"]):
        assert loramill(tmp_path, *command).returncode == 0, command


def test_a_resumed_run_takes_no_other_config(given: Path, tmp_path: Path) -> None:
    (tmp_path / "results" / "run").mkdir(parents=True)
    refused = loramill(
        tmp_path,
        "train",
        config_file(given, tmp_path),
        "--resume",
        "run",
        "--learning_rate",
        "3e-4",
        "--set",
        "lora.r=2",
    )
    assert refused.returncode == 2
    for key in ("training.learning_rate", "lora.r", "config.yaml"):
        assert key in refused.stderr
    assert "3 problems" in refused.stderr


@pytest.mark.parametrize("experiment_id", ["nothing", "../results", ""])
def test_resuming_what_is_not_there_is_named(experiment_id: str, given: Path, tmp_path: Path) -> None:
    refused = loramill(tmp_path, "train", "--resume", experiment_id or "..")
    assert refused.returncode == 1
    assert "error [not_found]" in refused.stderr
    assert "loramill experiments list" in refused.stderr


def test_a_wrong_config_leaves_nothing_behind(given: Path, tmp_path: Path) -> None:
    refused = loramill(tmp_path, "train", "--learning_rate", "-1", "--set", "lora.rank=3", "--json")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "2 problems" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def text_column_gone(folder: Path) -> None:
    for file in (folder / "rows").glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        file.write_text("\n".join(json.dumps({"id": n, "label": row["label"]}) for n, row in enumerate(rows)))


def unknown_class(folder: Path) -> None:
    file = folder / "rows" / "validation.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace('"label": 1', '"label": 5'), encoding="utf-8")


def infinite_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["embeddings.LayerNorm.weight"][:] = float("inf")
    save_file(tensors, file, {"format": "pt"})


Failure = tuple[Callable[[Path], object], list[str], str, str]
FAILURES: dict[str, Failure] = {
    "a model folder that is not there": (
        lambda f: None,
        ["--model_name", "./nothing"],
        "model_not_found",
        "model.name",
    ),
    "a model that the hub would have": (
        lambda f: None,
        ["--model_name", "someone/something"],
        "model_not_found",
        "config/quickstart.yaml",
    ),
    "a package that is not installed": (
        lambda f: None,
        ["--model_name", "package:no_such_package"],
        "model_not_found",
        "pip install",
    ),
    "a model without weights": (
        lambda f: (f / "model" / "model.safetensors").unlink(),
        [],
        "model_invalid",
        "save_pretrained",
    ),
    "a model that nobody knows": (
        lambda f: (f / "model" / "config.json").write_text('{"model_type": "no-such-family"}'),
        [],
        "model_invalid",
        "distilbert",
    ),
    "data that is not there": (lambda f: None, ["--dataset_name", "rows.csv"], "dataset_not_found", "sample:"),
    "data that the hub would have": (
        lambda f: None,
        ["--dataset_name", "someone/something"],
        "dataset_not_found",
        "sample:movie_reviews",
    ),
    "data without rows": (
        lambda f: (f / "rows" / "train.jsonl").write_text(""),
        [],
        "dataset_empty",
        "train.jsonl",
    ),
    "data without a split to train on": (
        lambda f: (f / "rows" / "train.jsonl").unlink(),
        [],
        "split_missing",
        "train.*",
    ),
    "data without the columns": (text_column_gone, [], "column_missing", "data.text_column"),
    "a class that was never trained": (unknown_class, [], "label_invalid", "5"),
    "weights that are not finite": (infinite_weights, [], "loss_not_finite", "learning_rate"),
}


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_every_failure_has_a_name_and_a_way_out(failure: Failure, given: Path, tmp_path: Path) -> None:
    damage, flags, code, way_out = failure
    shutil.copytree(given, tmp_path / "given")
    damage(tmp_path / "given")
    failed = loramill_forked(tmp_path, "train", config_file(tmp_path / "given", tmp_path), *flags, "--json")
    assert failed.returncode == 1, failed.stderr
    document = json.loads(failed.stdout)
    assert document["status"] == "FAILURE"
    assert document["error"]["code"] == code
    assert way_out in document["error"]["message"] + document["error"]["fix"]
    assert f"error [{code}]: " in failed.stderr
    assert "Traceback" not in failed.stderr
    assert row_of(tmp_path, document["experiment_id"]) == {"status": "FAILURE", "error_code": code}


def test_a_config_that_does_not_fit_the_model_is_wrong_use(given: Path, tmp_path: Path) -> None:
    config = config_file(given, tmp_path, lora__target_modules=["q_lin"])
    refused = loramill_forked(tmp_path, "train", config, "--json")
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["error"]["code"] == "config_invalid"
    assert "query" in refused.stderr


def test_a_home_that_may_not_be_written_is_named(given: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    config = config_file(given, tmp_path)
    home.chmod(0o500)
    without_power = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if without_power and not shutil.which("setpriv"):
        pytest.skip("root writes everywhere, and setpriv is not here to take that away")
    refused = loramill(home, "train", config, "--json", before=without_power)
    assert refused.returncode == 1
    assert "error [folder_unwritable]" in refused.stderr, refused.stderr
    assert "LORAMILL_HOME" in refused.stderr
    assert "Traceback" not in refused.stderr
