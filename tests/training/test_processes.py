"""Data parallel: two processes over gloo give the loss curve and the adapter of one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from loramill.config.load import parse_config
from loramill.experiments.folder import ExperimentFolder
from loramill.training.processes import ALONE, Processes
from small_models import save_small_model
from small_runs import small_config, train, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_two(home: Path, *arguments: str) -> list[subprocess.Popen[str]]:
    """The command in two processes, as torchrun starts them."""
    port = str(free_port())
    started = []
    for rank in range(2):
        names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        environment = {**os.environ, **names, "MASTER_PORT": port, "LORAMILL_HOME": str(home), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "loramill", "train", *arguments, "--json"]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
    return started


def results(processes: list[subprocess.Popen[str]], code: int = 0) -> dict[str, Any]:
    outputs = [process.communicate(timeout=280) for process in processes]
    assert [process.returncode for process in processes] == [code, 0], outputs
    assert outputs[1][0] == ""  # the second writes nothing
    document: dict[str, Any] = json.loads(outputs[0][0])
    return document


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    config = small_config(
        save_small_model("bert", tmp_path / "model"),
        write_rows(tmp_path / "rows", train=90),
        training__num_train_epochs=3,
        training__per_device_train_batch_size=8,
        training__logging_steps=1,
        training__learning_rate=3e-3,
    )
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    return file


def curve(events: list[dict[str, Any]]) -> list[float]:
    """Losses of all steps, then of all evaluations."""
    return [event["loss"] for event in events if event["type"] == "log"] + [
        event["metrics"]["eval_loss"] for event in events if event["type"] == "eval"
    ]


def test_two_processes_have_the_loss_curve_of_one(config_file: Path, tmp_path: Path) -> None:
    found = results(start_two(tmp_path, str(config_file)))
    together = ExperimentFolder(Path(found["folder"]))
    assert found["status"] == "SUCCESS"
    assert len(list((tmp_path / "results").glob("small_2*"))) == 1
    tree = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    tree["training"]["per_device_train_batch_size"] = 16
    events: list[dict[str, Any]] = []
    _, alone = train(parse_config(tree), tmp_path, on_event=events.append)
    ours, theirs = curve(together.read_events()), curve(events)
    assert len(ours) == len(theirs) == 3 * 6 + 3
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    saved = [load_file(run.final_model / "adapter_model.safetensors") for run in (together, alone)]
    for name, tensor in saved[0].items():
        torch.testing.assert_close(tensor, saved[1][name], rtol=1e-3, atol=1e-4)


def test_stopping_one_stops_both_and_the_run_goes_on(config_file: Path, tmp_path: Path) -> None:
    processes = start_two(tmp_path, str(config_file), "--set", "training.num_train_epochs=2000")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "results").glob("small_2*/artifacts/checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)  # to the one that does not write
    stopped = results(processes, code=130)
    assert stopped["status"] == "REVOKED"
    last = max(int(path.name.rpartition("-")[2]) for path in Path(stopped["folder"]).glob("artifacts/checkpoint-*"))
    folder = Path(stopped["folder"])
    tree = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    tree["training"]["num_train_epochs"] = (last + 6) / 6
    (folder / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    resumed = results(start_two(tmp_path, "--resume", folder.name))
    assert resumed["metrics"]["train"]["steps"] == last + 6


def test_every_row_of_a_batch_is_somebodys() -> None:
    rows = np.arange(11)
    shares = [Processes(rank, 3).share(rows) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == list(rows)
    assert list(ALONE.share(rows)) == list(rows)
