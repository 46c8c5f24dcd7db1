"""A forecast of memory, time and disk: measured on a few real steps of the very run, not on a formula.

The longest rows make the memory, the average step makes the time; both are tried with the real base, the real data and
the engine as it is, which takes seconds.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from loramill.config.schema import ExperimentConfig
from loramill.engine.bank import AdapterBank
from loramill.engine.batching import IntArray, TokenRows
from loramill.engine.step import AdapterBatch, LabelledTokens, accumulate_gradients, predict_logits
from loramill.experiments.folder import ExperimentFolder
from loramill.monitor.resources import peak_rss_bytes
from loramill.training import stages
from loramill.training.device import is_out_of_memory
from loramill.training.loop import TrialRun
from loramill.training.trial import Trial

TIMED_STEPS = 5
TIMED_EVALUATION_ROWS = 256
CHECKPOINTS_KEPT = 3
RELOAD_SECONDS = 3.0
"""A fresh process that imports torch and reads the base, as the reload gate does."""


@dataclass(frozen=True)
class RunPlan:
    """What a run will take.

    Attributes:
        memory_bytes: peak of the process (CPU) or of the device's allocator (CUDA).
        memory_free_bytes: free there now.
        seconds: from start to end; ``train_seconds`` of them are the training loop.
        disk_bytes: everything that stays.
        fits: whether the memory is there; a run that does not fit still goes on with smaller micro-batches.
    """

    device: str
    trainable_parameters: int
    train_rows: int
    eval_rows: int
    steps: int
    memory_bytes: int
    memory_free_bytes: int
    seconds: float
    train_seconds: float
    disk_bytes: int
    fits: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan_run(config: ExperimentConfig, *, data_folder: Path) -> RunPlan:
    """Try a run for a few seconds and forecast the whole; nothing of it is kept.

    Raises:
        LoramillError: what would also stop the run before its first step.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="loramill-plan-") as scratch:
        folder = ExperimentFolder.create(Path(scratch), "plan", datetime.now().astimezone())
        context = stages.set_up(config, folder, lambda _event: None)
        data = stages.load_data(context, data_folder, strict=False)
    base = stages.load_frozen_base(context, context.compute.dtype)
    run = stages.add_adapter(context, base, data)
    bank = AdapterBank(base, [run.trial.adapter])
    loading = time.perf_counter() - started
    free = _free_memory(base.device)
    fits = _try_longest_rows(bank, run)
    step_seconds = _median_seconds(lambda step: _step(bank, run.trial, _rows_of_step(run.trial, step)), TIMED_STEPS)
    evaluation_seconds = _evaluation_seconds(bank, run.evaluation)
    train_seconds = run.trial.plan.total_steps * step_seconds + _evaluations(run.trial) * evaluation_seconds
    exact = 1.0 if context.compute.dtype == torch.float32 else 2.5
    return RunPlan(
        device=str(base.device),
        trainable_parameters=run.trial.adapter.values.numel(),
        train_rows=len(data.train),
        eval_rows=len(data.eval),
        steps=run.trial.plan.total_steps,
        memory_bytes=_peak_memory(base.device),
        memory_free_bytes=free,
        seconds=loading + train_seconds + exact * evaluation_seconds + RELOAD_SECONDS,
        train_seconds=train_seconds,
        disk_bytes=_disk(run, context),
        fits=fits,
    )


def _try_longest_rows(bank: AdapterBank, run: TrialRun) -> bool:
    """One step on the longest rows that could ever share a micro-batch; whether it fits in memory."""
    lengths = run.trial.train.rows.lengths
    longest: IntArray = np.argsort(-lengths, kind="stable")[: run.micro_rows]
    try:
        _step(bank, run.trial, longest)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _step(bank: AdapterBank, trial: Trial, rows: IntArray) -> None:
    micro_rows = trial.config.training.per_device_train_batch_size
    accumulate_gradients(bank, [AdapterBatch(trial.index, trial.train, rows, micro_rows, trial.next_batch(1).dropout)])
    trial.adapter.grads.zero_()
    if bank.base.device.type == "cuda":
        torch.cuda.synchronize(bank.base.device)


def _rows_of_step(trial: Trial, step: int) -> IntArray:
    """Rows of typical length: every so many-th of the rows sorted by length, another offset for each step."""
    order = np.argsort(trial.train.rows.lengths, kind="stable")
    count = min(trial.plan.batch_size, len(order))
    places = (np.arange(count) + (step + 0.5) / (TIMED_STEPS + 1)) * len(order) / count
    rows: IntArray = order[places.astype(np.int64)]
    return rows


def _median_seconds(action: Callable[[int], None], times: int) -> float:
    action(0)
    seconds = []
    for turn in range(times):
        started = time.perf_counter()
        action(turn)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _evaluation_seconds(bank: AdapterBank, evaluation: LabelledTokens) -> float:
    """Time of one whole evaluation, from a part of it."""
    rows = evaluation.rows
    share = max(1, math.ceil(len(rows) / TIMED_EVALUATION_ROWS))
    part = rows.take(np.arange(0, len(rows), share))
    seconds = _median_seconds(lambda _turn: _predict(bank, part), 1)
    return seconds * float(rows.lengths.sum() / part.lengths.sum())


def _predict(bank: AdapterBank, part: TokenRows) -> None:
    predict_logits(bank, 0, part)


def _evaluations(trial: Trial) -> int:
    training = trial.config.training
    if training.eval_strategy == "no":
        return 0
    every = training.eval_steps or training.logging_steps
    interval = trial.plan.steps_per_epoch if training.eval_strategy == "epoch" else every
    return math.ceil(trial.plan.total_steps / interval)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return peak_rss_bytes() or psutil.Process().memory_info().rss


def _disk(run: TrialRun, context: stages.RunContext) -> int:
    """Adapter, gradient statistics and tokenizer in each checkpoint and in the final model; logs and predictions."""
    adapter = run.trial.adapter.values.numel() * 4
    tokenizer = sum(file.stat().st_size for file in context.files.tokenizer_files)
    predictions = len(run.evaluation) * 40
    return CHECKPOINTS_KEPT * 3 * adapter + adapter + tokenizer + predictions + 200_000
