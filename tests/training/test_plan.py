"""The forecast of a run: right where it can be counted, near where it has to be measured, and nothing of it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from loramill.training.plan import plan_run
from small_models import save_small_model
from small_runs import small_config, train, write_rows


@pytest.mark.parametrize("changes", [{}, {"lora__layers_to_transform": [2], "training__save_steps": 2}])
def test_a_plan_counts_what_the_run_then_has(changes: dict[str, object], tmp_path: Path) -> None:
    config = small_config(save_small_model("bert", tmp_path / "model"), write_rows(tmp_path / "rows"), **changes)
    plan = plan_run(config, data_folder=tmp_path / "data")
    assert not (tmp_path / "results").exists()
    assert plan.fits
    assert plan.memory_bytes > 10 * 2**20
    assert plan.seconds > plan.train_seconds > 0

    result, folder = train(config, tmp_path)
    metrics = result.metrics["train"]
    assert (plan.steps, plan.train_rows, plan.eval_rows) == (metrics["steps"], metrics["samples"], 48)
    assert plan.trainable_parameters == metrics["trainable_parameters"]
    kept = sum(file.stat().st_size for file in folder.path.rglob("*") if file.is_file())
    assert kept / 4 < plan.disk_bytes < 40 * kept


def test_longer_training_takes_longer(tmp_path: Path) -> None:
    model, rows = save_small_model("bert", tmp_path / "model"), write_rows(tmp_path / "rows")
    short, long = (
        plan_run(small_config(model, rows, training__num_train_epochs=epochs), data_folder=tmp_path / "data")
        for epochs in (1, 1000)
    )
    assert long.steps == 1000 * short.steps
    assert long.train_seconds > 20 * short.train_seconds
