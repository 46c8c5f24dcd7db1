"""Adapters trained side by side are the ones that they would be alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from loramill.config.load import parse_config
from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.engine.low_rank_adapter import Adapter
from loramill.engine.step import LabelledTokens, StepResult, accumulate_gradients
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.training import loop
from loramill.training.checkpoint_manager import CheckpointManager
from loramill.training.loop import TrialRun, train_trials
from loramill.training.stages import adapter_spec
from loramill.training.trial import Trial
from small_models import CONFIGS, save_small_model, small_base

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = [" ".join(LETTERS[start % 20 : start % 20 + 1 + start % 7]) for start in range(60)]
TRIALS = [
    {
        "lora": {"r": rank, "lora_dropout": dropout, "lora_alpha": 8},
        "training": {"learning_rate": rate, "seed": seed, **more},
    }
    for rank, dropout, rate, seed, more in [
        (2, 0.0, 1e-3, 1, {"per_device_train_batch_size": 8}),
        (4, 0.1, 3e-3, 2, {"per_device_train_batch_size": 5, "lr_scheduler_type": "cosine"}),
        (8, 0.0, 1e-2, 3, {"per_device_train_batch_size": 16, "warmup_ratio": 0.2}),
        (1, 0.3, 5e-3, 4, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}),
        (4, 0.0, 1e-3, 5, {"per_device_train_batch_size": 8, "weight_decay": 0.1}),
        (8, 0.1, 2e-3, 6, {"per_device_train_batch_size": 7, "max_grad_norm": 0.1}),
        (16, 0.0, 1e-3, 7, {"per_device_train_batch_size": 3, "num_train_epochs": 1}),
        (2, 0.0, 1e-2, 8, {"per_device_train_batch_size": 60, "lr_scheduler_type": "constant"}),
    ]
]


class Unobserved:
    def record_step(self, *, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None: ...


def make_run(base: FrozenBase, data: LabelledTokens, trial: dict, index: int, folder: Path) -> TrialRun:
    defaults = {"num_train_epochs": 3, "eval_strategy": "no"}
    config = parse_config({**trial, "training": {**defaults, **trial["training"]}})
    adapter = Adapter(base, adapter_spec(config, base, labels=2), dtype=base.dtype)
    return TrialRun(
        trial=Trial(config, index, adapter, data, lambda _event: None),
        checkpoints=CheckpointManager(folder),
        evaluation=data,
        label_names=("a", "b"),
        base_name="base",
    )


def train(base: FrozenBase, data: LabelledTokens, trials: Sequence[dict], folder: Path, packed: int) -> list[Adapter]:
    """Train the trials in one pass; returns the trained adapters."""
    runs = [make_run(base, data, trial, index, folder / str(index)) for index, trial in enumerate(trials)]
    bank = AdapterBank(base, [run.trial.adapter for run in runs])
    assert train_trials(bank, runs, should_stop=lambda: False, observer=Unobserved(), packed_tokens=packed) is None
    assert all(run.trial.progress.step == run.trial.plan.total_steps for run in runs)
    return bank.adapters


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_eight_packed_trials_equal_the_same_trials_alone(
    family: str, dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    model = save_small_model(family, tmp_path / "model")
    base = small_base(model, dtype)
    rows = tokenize(load_tokenizer(model), TEXTS, None, max_length=16)
    data = LabelledTokens(rows, torch.arange(len(TEXTS)) % 2, "single_label_classification")
    together = train(base, data, TRIALS, tmp_path / "together", packed=10_000)
    worst = 0.0
    for index, trial in enumerate(TRIALS):
        (alone,) = train(base, data, [trial], tmp_path / f"alone{index}", packed=0)
        scale = float(alone.values.abs().max())
        worst = max(worst, float((together[index].values - alone.values).abs().max()) / scale)
        assert not torch.equal(alone.values, Adapter(base, alone.spec, dtype=dtype).values)
    assert worst <= tolerance


def test_where_memory_ran_out_passes_hold_half_the_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_small_model("bert", tmp_path / "model")
    rows = tokenize(load_tokenizer(model), TEXTS, None, max_length=16)
    data = LabelledTokens(rows, torch.arange(len(TEXTS)) % 2, "single_label_classification")
    budgets: list[int] = []

    def first_without_memory(bank: AdapterBank, work: Any, *, packed_tokens: int, **_: object) -> list[StepResult]:
        budgets.append(packed_tokens)
        if len(budgets) == 1:
            raise MemoryError
        return accumulate_gradients(bank, work, packed_tokens=packed_tokens)

    monkeypatch.setattr(loop, "accumulate_gradients", first_without_memory)
    train(small_base(model), data, TRIALS[:1], tmp_path / "runs", packed=1000)
    assert budgets[0] == 1000
    assert set(budgets[1:]) == {500}


def test_trials_of_one_row_each_share_smaller_passes_where_memory_ran_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_small_model("bert", tmp_path / "model")
    rows = tokenize(load_tokenizer(model), TEXTS, None, max_length=16)
    data = LabelledTokens(rows, torch.arange(len(TEXTS)) % 2, "single_label_classification")

    def with_memory_for_200(bank: AdapterBank, work: Any, *, packed_tokens: int, **_: object) -> list[StepResult]:
        if packed_tokens > 200:
            raise MemoryError
        return accumulate_gradients(bank, work, packed_tokens=packed_tokens)

    monkeypatch.setattr(loop, "accumulate_gradients", with_memory_for_200)
    one_row = [{**trial, "training": {**trial["training"], "per_device_train_batch_size": 1}} for trial in TRIALS[:2]]
    train(small_base(model), data, one_row, tmp_path / "runs", packed=1000)
