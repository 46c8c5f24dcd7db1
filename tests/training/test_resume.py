"""A run that was killed or stopped goes on to the same adapter, bit by bit."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

import forked
from loramill.config.load import dump_config
from loramill.config.schema import ExperimentConfig
from loramill.errors import ResumeError
from loramill.experiments.folder import ExperimentFolder
from small_models import save_small_model
from small_runs import new_folder, small_config, train, train_in_own_session, write_rows

EVERYTHING = {
    "lora__lora_dropout": 0.1,
    "lora__loraplus_lr_ratio": 4.0,
    "training__per_device_train_batch_size": 8,
    "training__gradient_accumulation_steps": 2,
    "training__num_train_epochs": 7.5,
    "training__warmup_ratio": 0.1,
    "training__weight_decay": 0.01,
    "training__lr_scheduler_type": "cosine",
    "training__eval_strategy": "steps",
    "training__eval_steps": 5,
    "training__save_steps": 3,
    "training__early_stopping_patience": 4,
    "training__metric_for_best_model": "loss",
}
"""All that a run has to remember: 45 steps unless it stops early."""


class Uninterrupted:
    """A run that nothing disturbed, and how long it took."""

    def __init__(self, home: Path) -> None:
        self.home = home
        data = write_rows(home / "rows")
        self.config = small_config(save_small_model("bert", home / "model"), data, **EVERYTHING)
        started = time.monotonic()
        self.hashes = result_hashes(finish(home, submit(home, self.config), resume=False))
        self.seconds = time.monotonic() - started


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    return Uninterrupted(tmp_path_factory.mktemp("uninterrupted"))


def submit(home: Path, config: ExperimentConfig) -> ExperimentFolder:
    folder = new_folder(home / "results")
    folder.write_config(dump_config(config))
    return folder


def finish(home: Path, folder: ExperimentFolder, *, resume: bool) -> ExperimentFolder:
    """Train until the final model is there; the gate after it has its own tests, and needs a process each time."""
    process = forked.start(train_in_own_session, home, folder.id, resume)
    while not (folder.final_model / "README.md").is_file():
        assert process.is_alive(), "the run failed"
        time.sleep(0.001)
    kill(process)
    return folder


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it had no session of its own yet
        process.kill()
    process.join()


def result_hashes(folder: ExperimentFolder) -> dict[str, str]:
    """SHA-256 of the final adapter, and of the last checkpoint's adapter, optimizer and history."""
    last = json.loads((folder.artifacts / "checkpoints.json").read_text(encoding="utf-8"))["last"]
    names = ("adapter_model.safetensors", "optimizer.safetensors", "trainer_state.json")
    files = [folder.final_model / "adapter_model.safetensors", *(folder.artifacts / last / name for name in names)]
    return {str(file.relative_to(folder.path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def killed_and_resumed(run: Uninterrupted, moments: list[float]) -> dict[str, str]:
    """The hashes of a run that is killed after each of these times (seconds), and resumed each time."""
    folder = submit(run.home, run.config)
    for number, seconds in enumerate(moments):
        process = forked.start(train_in_own_session, run.home, folder.id, number > 0)
        process.join(seconds)
        kill(process)
    return result_hashes(finish(run.home, folder, resume=True))


def test_killed_runs_end_in_the_same_adapter(uninterrupted: Uninterrupted) -> None:
    moments = [uninterrupted.seconds * share for share in (0.5, 0.4, 0.3)]
    assert killed_and_resumed(uninterrupted, moments) == uninterrupted.hashes


@pytest.mark.slow
@pytest.mark.faults
def test_twenty_runs_killed_at_random_end_in_the_same_adapter(uninterrupted: Uninterrupted) -> None:
    for seed in range(20):
        draw = random.Random(seed)
        moments = [draw.uniform(0.1, 1.0) * uninterrupted.seconds for _ in range(draw.randint(1, 2))]
        assert killed_and_resumed(uninterrupted, moments) == uninterrupted.hashes, moments


def test_a_stopped_run_goes_on_and_a_second_run_in_the_same_process_is_the_same(uninterrupted: Uninterrupted) -> None:
    folder, home = submit(uninterrupted.home, uninterrupted.config), uninterrupted.home
    steps = iter([False] * 7 + [True] + [False] * 4 + [True])
    for resume in (False, True):
        result, _ = train(uninterrupted.config, home, folder=folder, resume=resume, should_stop=lambda: next(steps))
        assert (result.status, result.metrics) == ("stopped", {})
    assert {path.name for path in folder.artifacts.glob("checkpoint-*")} >= {"checkpoint-11"}
    result, _ = train(uninterrupted.config, home, folder=folder, resume=True)
    assert result.status == "finished"
    assert result_hashes(folder) == uninterrupted.hashes


def test_another_seed_is_another_run(uninterrupted: Uninterrupted) -> None:
    home = uninterrupted.home
    config = small_config(home / "model", home / "rows", **EVERYTHING, training__seed=7)
    assert result_hashes(finish(home, submit(home, config), resume=False)) != uninterrupted.hashes


def test_resuming_on_other_rows_is_refused_and_names_the_rows_to_take(tmp_path: Path) -> None:
    config = small_config(save_small_model("bert", tmp_path / "model"), write_rows(tmp_path / "rows"))
    folder = submit(tmp_path, config)
    steps = iter([False] * 3 + [True])
    train(config, tmp_path, folder=folder, should_stop=lambda: next(steps))
    write_rows(tmp_path / "rows", validation=24)
    with pytest.raises(ResumeError, match="eval rows") as caught:
        train(config, tmp_path, folder=folder, resume=True)
    assert "version:" in caught.value.fix


def test_resuming_with_another_adapter_is_refused(tmp_path: Path) -> None:
    model, data = save_small_model("bert", tmp_path / "model"), write_rows(tmp_path / "rows")
    folder = submit(tmp_path, small_config(model, data))
    steps = iter([False] * 3 + [True])
    train(small_config(model, data), tmp_path, folder=folder, should_stop=lambda: next(steps))
    with pytest.raises(ResumeError, match="checkpoint-3"):
        train(small_config(model, data, lora__r=4), tmp_path, folder=folder, resume=True)
