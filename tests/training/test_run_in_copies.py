"""A whole run on two cores, of which the second one is a copy of the process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loramill.engine import step_copies
from loramill.engine.forked_lanes import can_fork
from loramill.experiments.folder import ExperimentFolder
from small_models import save_small_model
from small_runs import small_config, train, write_rows

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are not forked here")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    save_small_model("bert", folder / "model")
    write_rows(folder / "rows", train=192)
    return folder


def run(
    given: Path, home: Path, hear: Callable[[dict[str, Any]], None] = lambda _event: None
) -> tuple[str, ExperimentFolder]:
    """Two epochs of two steps, each with tokens enough for two cores."""
    changes = {"training__num_train_epochs": 2, "training__per_device_train_batch_size": 96, "system__num_threads": 2}
    config = small_config(given / "model", given / "rows", lora__lora_dropout=0.1, training__logging_steps=1, **changes)
    result, folder = train(config, home, on_event=hear)
    return result.status, folder


def adapter(folder: ExperimentFolder) -> bytes:
    return (folder.final_model / "adapter_model.safetensors").read_bytes()


def test_the_adapter_is_that_of_threads(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[int] = []
    status, forked = run(given, tmp_path, lambda _event: copies.append(len(multiprocessing.active_children())))
    assert (status, max(copies)) == ("finished", 1)
    assert not multiprocessing.active_children()
    monkeypatch.setattr(step_copies, "can_fork", lambda: False)
    copies.clear()
    status, threaded = run(given, tmp_path, lambda _event: copies.append(len(multiprocessing.active_children())))
    assert (status, max(copies)) == ("finished", 0)
    assert adapter(forked) == adapter(threaded)


def test_a_run_goes_on_when_its_copy_is_killed(given: Path, tmp_path: Path) -> None:
    said: list[str] = []
    steps: list[int] = []

    def kill_once(event: dict[str, Any]) -> None:
        said.append(event.get("message", ""))
        if event["type"] == "log":
            steps.append(event["step"])
            if len(steps) == 1:
                (copy,) = multiprocessing.active_children()
                copy.kill()

    status, _ = run(given, tmp_path, kill_once)
    assert (status, steps) == ("finished", [1, 2, 3, 4])
    assert any("going on with 48 rows in a forward pass" in message for message in said)
    assert not multiprocessing.active_children()
