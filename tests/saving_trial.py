"""A trial that can be saved, with no training around it, and the process that ends while it saves one."""

from __future__ import annotations

from pathlib import Path

import torch

from fault_injection import Fault, FaultInjector
from loramill.base_models import locate_base_model
from loramill.engine.base import load_base
from loramill.engine.low_rank_adapter import Adapter, AdapterSpec
from loramill.engine.step import LabelledTokens, StepResult
from loramill.engine.token_rows import TokenRows
from loramill.training.checkpoint_manager import Checkpoint, CheckpointManager, verify_checkpoint
from loramill.training.training_state import load_state, save_state
from loramill.training.trial import Trial, learn
from small_runs import small_config


class SavingTrial:
    def __init__(self, model: Path) -> None:
        files = locate_base_model(str(model))
        self.base = load_base(files.config, files.weights, dtype=torch.float32, device=torch.device("cpu"))
        spec = AdapterSpec(rank=4, alpha=8, sites=("query", "value"), dropout=0.1, labels=2, seed=1)
        rows = TokenRows(*(torch.arange(n).numpy() for n in (4, 4, 5)))
        data = LabelledTokens(rows, torch.zeros(4, dtype=torch.long), "single_label_classification")
        config = small_config(model, Path("data"))
        self.trial = Trial(config, 0, Adapter(self.base, spec), data, lambda event: None)

    def save(self, manager: CheckpointManager, checkpoint: Checkpoint) -> None:
        self.trial.progress.step = checkpoint.step
        self.trial.adapter.values.fill_(checkpoint.step)
        manager.save(checkpoint, lambda folder: save_state(folder, self.base, self.trial, base_name="base"))

    def assert_restored(self, folder: Path, checkpoint: Checkpoint) -> None:
        """The whole state of a checkpoint is there, and it is that of its step."""
        verify_checkpoint(folder)
        load_state(folder, self.base, self.trial)
        assert self.trial.progress.step == checkpoint.step
        assert (self.trial.adapter.values == checkpoint.step).all()


def take(trial: Trial, result: StepResult) -> None:
    """A whole step of a trial whose gradient is there."""
    (norm,) = learn([trial], [result])
    trial.note(result, norm)


def save_next(model: Path, artifacts: Path, fault: Fault, fail_at: int, checkpoint: Checkpoint) -> None:
    """Save a checkpoint beside those that are there, and fail at one call of it."""
    saving, manager = SavingTrial(model), CheckpointManager(artifacts)
    manager.recover()
    with FaultInjector(fault, fail_at).installed():
        saving.save(manager, checkpoint)
