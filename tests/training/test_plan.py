"""The forecast of a run: right where it can be counted, near where it has to be measured, and nothing of it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from loramill.engine.forked_lanes import can_fork
from loramill.monitor.resources import bytes_of_children
from loramill.training import plan
from loramill.training.plan import plan_run
from small_models import save_small_model
from small_runs import small_config, train, write_rows


@pytest.mark.parametrize("changes", [{}, {"lora__layers_to_transform": [2], "training__save_steps": 2}])
def test_a_plan_counts_what_the_run_then_has(changes: dict[str, object], tmp_path: Path) -> None:
    config = small_config(save_small_model("bert", tmp_path / "model"), write_rows(tmp_path / "rows"), **changes)
    planned = plan_run(config, data_folder=tmp_path / "data")
    assert not (tmp_path / "results").exists()
    assert planned.fits
    assert planned.memory_bytes > 10 * 2**20
    assert planned.seconds > planned.train_seconds > 0

    result, folder = train(config, tmp_path)
    metrics = result.metrics["train"]
    assert (planned.steps, planned.train_rows, planned.eval_rows) == (metrics["steps"], metrics["samples"], 48)
    assert planned.trainable_parameters == metrics["trainable_parameters"]
    kept = sum(file.stat().st_size for file in folder.path.rglob("*") if file.is_file())
    assert kept / 4 < planned.disk_bytes < 40 * kept


def test_longer_training_takes_longer(tmp_path: Path) -> None:
    model, rows = save_small_model("bert", tmp_path / "model"), write_rows(tmp_path / "rows")
    short, long = (
        plan_run(small_config(model, rows, training__num_train_epochs=epochs), data_folder=tmp_path / "data")
        for epochs in (1, 1000)
    )
    assert long.steps == 1000 * short.steps
    assert long.train_seconds > 20 * short.train_seconds


@pytest.mark.skipif(not can_fork(), reason="processes are not forked here")
def test_the_memory_of_copies_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_copies: list[int] = []
    much = 2**40  # more than whatever else the forecast could hold

    def count() -> int:
        of_copies.append(bytes_of_children())
        return of_copies[-1] + much

    monkeypatch.setattr(plan, "bytes_of_children", count)
    model, rows = save_small_model("bert", tmp_path / "model"), write_rows(tmp_path / "rows", train=192)
    on_two_cores = {"training__per_device_train_batch_size": 96, "system__num_threads": 2}
    planned = plan_run(small_config(model, rows, **on_two_cores), data_folder=tmp_path / "data")
    assert of_copies[-1] > 2**20, "a copy that trained has memory of its own"
    assert planned.memory_bytes > much
