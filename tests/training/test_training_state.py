"""A trial's state on disk: everything comes back, Transformers reads its part, and what does not fit is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import TrainerState

from loramill.engine.step import StepResult
from loramill.errors import ResumeError
from loramill.training.training_state import load_state, save_state
from saving_trial import SavingTrial, take
from small_models import save_small_model


@pytest.fixture
def saving(tmp_path: Path) -> SavingTrial:
    return SavingTrial(save_small_model("bert", tmp_path / "model"))


@pytest.fixture
def saved(saving: SavingTrial, tmp_path: Path) -> Path:
    """The state after three steps."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        saving.trial.adapter.grads.normal_(generator=generator)
        take(saving.trial, StepResult(1 / 3, 2, 5, 6))
        saving.trial.judge({"accuracy": 0.1 + 0.2, "loss": 0.7})
    folder = tmp_path / "state"
    folder.mkdir()
    save_state(folder, saving.base, saving.trial, base_name="base")
    return folder


def test_everything_comes_back(saving: SavingTrial, saved: Path, tmp_path: Path) -> None:
    other = SavingTrial(tmp_path / "model")
    load_state(saved, other.base, other.trial)
    assert torch.equal(other.trial.adapter.values, saving.trial.adapter.values)
    assert torch.equal(other.trial.optimizer.mean, saving.trial.optimizer.mean)
    assert torch.equal(other.trial.optimizer.square, saving.trial.optimizer.square)
    assert other.trial.optimizer.steps == 3
    assert other.trial.progress == saving.trial.progress


def test_transformers_reads_the_trainer_state(saved: Path) -> None:
    written = json.loads((saved / "trainer_state.json").read_text(encoding="utf-8"))
    assert set(written) <= set(TrainerState.__dataclass_fields__)
    state = TrainerState.load_from_json(str(saved / "trainer_state.json"))
    assert state.global_step == 3
    assert state.best_metric == 0.1 + 0.2
    assert [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry] == [0.7] * 3
    assert state.train_batch_size == 16


def test_nothing_is_pickled(saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}
    assert {name.rpartition(".")[2] for name in names} == {"json", "safetensors"}


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no optimizer": lambda folder: (folder / "optimizer.safetensors").unlink(),
    "optimizer cut off": lambda folder: (folder / "optimizer.safetensors").write_bytes(b"\x08"),
    "no adapter": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "no progress": lambda folder: (folder / "progress.json").unlink(),
    "progress of another version": lambda folder: (folder / "progress.json").write_text('{"stepp": 3}'),
    "progress is a list": lambda folder: (folder / "progress.json").write_text("[]"),
    "no history": lambda folder: (folder / "trainer_state.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_does_not_fit_is_refused_with_a_way_out(
    damage: Callable[[Path], object], saving: SavingTrial, saved: Path
) -> None:
    damage(saved)
    with pytest.raises(ResumeError) as caught:
        load_state(saved, saving.base, saving.trial)
    assert str(saved) in caught.value.message
    assert caught.value.fix
