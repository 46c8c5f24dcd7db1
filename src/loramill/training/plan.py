"""A forecast of memory, time and disk: measured on a few real steps of the very run, not on a formula.

The longest rows make the memory, the average step makes the time; both are tried with the real base, the real data and
the engine as it is, which takes seconds. So is what comes after training: a saved state, and the float32 base that the
final model is measured on.
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
from loramill.engine.step import AdapterBatch, LabelledTokens, accumulate_gradients, predict_logits
from loramill.engine.step_copies import StepCopies, step_copies
from loramill.engine.token_rows import IntArray
from loramill.experiments.folder import ExperimentFolder
from loramill.monitor.resources import bytes_of_children, peak_rss_bytes
from loramill.training import stages
from loramill.training.device import free_memory, is_out_of_memory
from loramill.training.loop import TrialRun, save_checkpoint
from loramill.training.prefix_cache import start_above_frozen_layers
from loramill.training.reload_gate import ROWS as RELOADED_ROWS
from loramill.training.trial import Trial

TIMED_STEPS = 8
TIMED_EVALUATION_ROWS = 256
CHECKPOINTS_KEPT = 3
START_SECONDS = 3.0
"""From the command to its first line of training code, where this process is too old to tell."""
YOUNG_SECONDS = 60.0
RELOAD_SHARE = 0.6
"""Of the start of a run: what the process needs to start that proves that the model reloads, which imports less."""
CLOSING_SECONDS = 0.2
"""Report, record and database at the end of a run."""
HEAP_GROWTH = 1.15
"""What a long run's peak adds to that of the steps tried: texts of ever other lengths leave gaps in the heap."""


@dataclass(frozen=True)
class RunPlan:
    """What a run will take.

    Attributes:
        memory_bytes: peak of the process and its copies (CPU) or of the device's allocator (CUDA).
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
    start_seconds = _start_seconds()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="loramill-plan-") as scratch:
        folder = ExperimentFolder.create(Path(scratch), "plan", datetime.now().astimezone())
        context = stages.set_up(config, folder, lambda _event: None)
        data = stages.load_data(context, data_folder, strict=False)
        base = stages.load_frozen_base(context, context.compute.dtype)
        run = stages.add_adapter(context, base, data)
        loading = time.perf_counter() - started
        free = free_memory(base.device)
        bank = AdapterBank(base, [run.trial.adapter])
        start_above_frozen_layers(base, [run], folder.path, context.note)
        with step_copies(bank, {run.trial.index: run.trial.train}) as copies:
            fits = _try_longest_rows(bank, run.trial, copies)
            costs = _measure_costs(context, bank, run, data, copies)
            memory = _peak_memory(base.device)
    train_seconds = _training_seconds(run.trial, costs)
    return RunPlan(
        device=str(base.device),
        trainable_parameters=run.trial.adapter.values.numel(),
        train_rows=len(data.train),
        eval_rows=len(data.eval),
        steps=run.trial.plan.total_steps,
        memory_bytes=memory,
        memory_free_bytes=free,
        seconds=(1 + RELOAD_SHARE) * start_seconds + loading + train_seconds + costs.final + CLOSING_SECONDS,
        train_seconds=train_seconds,
        disk_bytes=_disk(run, context),
        fits=fits,
    )


@dataclass(frozen=True)
class _Costs:
    """Seconds of the parts of a run.

    Attributes:
        final: reading the float32 base and comparing with it, here and in a fresh process.
    """

    step: float
    evaluation: float
    save: float
    final: float


def _measure_costs(
    context: stages.RunContext, bank: AdapterBank, run: TrialRun, data: stages.RunData, copies: StepCopies | None
) -> _Costs:
    step = _median_seconds(lambda turn: _step(bank, run.trial, _rows_of_step(run.trial, turn), copies), TIMED_STEPS)
    evaluation = _evaluation_seconds(bank, run.evaluation)
    started = time.perf_counter()
    save_checkpoint(bank, run, metric=None)
    saved = time.perf_counter()
    exact = stages.load_frozen_base(context, torch.float32)
    loaded = time.perf_counter()
    predict_logits(AdapterBank(exact, bank.adapters), 0, data.eval.rows.first(RELOADED_ROWS))
    loads = 1 if exact.dtype == bank.base.dtype else 2  # the fresh process reads it in any case
    return _Costs(step, evaluation, saved - started, loads * (loaded - saved) + 2 * (time.perf_counter() - loaded))


def _training_seconds(trial: Trial, costs: _Costs) -> float:
    steps, evaluated, saved = trial.plan.total_steps, trial.evaluation_interval, trial.config.training.save_steps
    evaluations = math.ceil(steps / evaluated) if evaluated else 0
    saves = evaluations + 1 + (steps // saved if saved else 0)
    return steps * costs.step + evaluations * costs.evaluation + saves * costs.save


def _start_seconds() -> float:
    """From the command to here."""
    age = time.time() - psutil.Process().create_time()
    return age if age < YOUNG_SECONDS else START_SECONDS


def _try_longest_rows(bank: AdapterBank, trial: Trial, copies: StepCopies | None) -> bool:
    """One step on the longest rows that could ever share a micro-batch; whether it fits in memory."""
    lengths = trial.train.rows.lengths
    longest: IntArray = np.argsort(-lengths, kind="stable")[: trial.config.training.per_device_train_batch_size]
    try:
        _step(bank, trial, longest, copies)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _step(bank: AdapterBank, trial: Trial, rows: IntArray, copies: StepCopies | None) -> None:
    micro_rows = trial.config.training.per_device_train_batch_size
    batch = AdapterBatch(trial.index, trial.train, rows, micro_rows, trial.next_batch(1).dropout)
    accumulate_gradients(bank, [batch], run_passes=copies)
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


def _median_seconds(action: Callable[[int], object], times: int) -> float:
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
    seconds = _median_seconds(lambda _turn: predict_logits(bank, 0, part), 1)
    return seconds * float(rows.lengths.sum() / part.lengths.sum())


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    here = peak_rss_bytes() or psutil.Process().memory_info().rss
    return round(HEAP_GROWTH * (here + bytes_of_children()))


def _disk(run: TrialRun, context: stages.RunContext) -> int:
    """Adapter, gradient statistics and tokenizer in each checkpoint and in the final model; logs and predictions."""
    adapter = run.trial.adapter.values.numel() * 4
    tokenizer = sum(file.stat().st_size for file in context.files.tokenizer_files)
    predictions = len(run.evaluation) * 40
    return CHECKPOINTS_KEPT * 3 * adapter + adapter + tokenizer + predictions + 200_000
