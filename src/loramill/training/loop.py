"""The training loop: one trial or many, in steps that all of them take together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

from loramill.engine.bank import AdapterBank
from loramill.engine.step import AdapterBatch, LabelledTokens, StepResult, accumulate_gradients, packed_tokens_of
from loramill.engine.step_copies import step_copies
from loramill.errors import LoramillError, NonFiniteLossError, OutOfMemoryError
from loramill.training.checkpoint_manager import Checkpoint, CheckpointManager
from loramill.training.device import MEMORY_TRIES, is_out_of_memory
from loramill.training.evaluation import Evaluation, evaluate
from loramill.training.training_state import save_state
from loramill.training.trial import Trial, learn

SAVE_INTERVAL_SECONDS = 60.0
"""Without ``save_steps`` a checkpoint is saved at least this often, so that a crash costs a minute, not the run."""

StopReason = Literal["stopped", "time_limit"]
STOP_REASONS: tuple[StopReason, ...] = ("stopped", "time_limit")


class StepGradients(Protocol):
    """``accumulate_gradients`` of one bank."""

    def __call__(self, work: Sequence[AdapterBatch], *, packed_tokens: int) -> list[StepResult]: ...


class StepObserver(Protocol):
    """Whoever measures the steps, such as ``PerformanceMonitor``."""

    def record_step(self, *, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None: ...


@dataclass
class TrialRun:
    """A trial with what the loop needs to save and to judge it.

    Attributes:
        memory_share: of what a forward pass takes at first; halved when memory runs out.
        pause_at: step before which the loop stops taking this trial's steps.
        earlier_seconds: training time of the processes that it was resumed from; the time limit is for each alone.
        measured: step -> what the adapter was at it, for the best step and for what others measured on the way.
        failure: why it cannot go on while others do.
    """

    trial: Trial
    checkpoints: CheckpointManager
    evaluation: LabelledTokens
    label_names: Sequence[str]
    base_name: str
    memory_share: float = 1.0
    pause_at: int | None = None
    earlier_seconds: float = 0.0
    measured: dict[int, Evaluation] = field(default_factory=dict)
    failure: LoramillError | None = None

    @property
    def micro_rows(self) -> int:
        """Rows of this trial in one forward pass."""
        return max(1, int(self.trial.config.training.per_device_train_batch_size * self.memory_share))

    @property
    def active(self) -> bool:
        """Whether it takes the next step; a sweep pauses trials to compare them."""
        paused = self.pause_at is not None and self.trial.progress.step >= self.pause_at
        return not (self.trial.finished or paused or self.failure)


def train_trials(
    bank: AdapterBank,
    runs: Sequence[TrialRun],
    *,
    should_stop: Callable[[], bool],
    observer: StepObserver,
    packed_tokens: int | None = None,
    isolate: bool = False,
) -> StopReason | None:
    """Train until every trial has finished or paused, somebody asks to stop, or the time limit is reached.

    Trials that stop keep a checkpoint of their last step.

    Args:
        packed_tokens: see ``accumulate_gradients``.
        isolate: a trial whose loss is not finite is marked as failed, and the others go on.

    Returns:
        Why it stopped before the end; ``None`` when all trials finished.

    Raises:
        NonFiniteLossError, OutOfMemoryError, StorageError: a verified checkpoint remains.
    """
    with step_copies(bank, {run.trial.index: run.trial.train for run in runs}) as copies:
        gradients = partial(accumulate_gradients, bank, run_passes=copies)
        budget = packed_tokens if packed_tokens is not None else packed_tokens_of(bank.base)
        while active := [run for run in runs if run.active]:
            if reason := active[0].trial.processes.agree(_stop_reason(active, should_stop), STOP_REASONS):
                for run in active:
                    save_checkpoint(bank, run, metric=None)
                return reason
            started = time.perf_counter()
            results = _take_step(active, gradients, budget)
            norms = learn([run.trial for run in active], results)
            share = (time.perf_counter() - started) / len(active)
            for run, result, norm in zip(active, results, norms, strict=True):
                _record(observer, run, result, share)
                with _noted_failures(run, isolate):
                    _note(bank, run, result, norm)
                    _finish_step(bank, run)
    return None


def _record(observer: StepObserver, run: TrialRun, result: StepResult, seconds: float) -> None:
    run.trial.progress.seconds += seconds
    observer.record_step(rows=result.rows, tokens=result.tokens, padded_tokens=result.padded_tokens, seconds=seconds)


@contextlib.contextmanager
def _noted_failures(run: TrialRun, isolate: bool) -> Iterator[None]:
    """Keep a trial's failure with it, so that the others go on."""
    try:
        yield
    except NonFiniteLossError as error:
        if not isolate:
            raise
        run.failure = error
        run.trial.adapter.grads.zero_()
        run.trial.emit({"type": "warning", "message": f"This trial ends here: {error.message}"})


def _stop_reason(active: Sequence[TrialRun], should_stop: Callable[[], bool]) -> StopReason | None:
    if should_stop():
        return "stopped"
    return "time_limit" if any(_out_of_time(run) for run in active) else None


def _out_of_time(run: TrialRun) -> bool:
    limit = run.trial.config.training.max_seconds
    return limit is not None and run.trial.progress.seconds - run.earlier_seconds >= limit


def _take_step(active: Sequence[TrialRun], gradients: StepGradients, packed_tokens: int) -> list[StepResult]:
    """Gradients of one step of every trial; out of memory, the forward passes are halved and the step repeated.

    The batch that the optimizer sees stays the same, since its parts are summed. Where each trial is down to one row,
    fewer trials share a pass.
    """
    tries = 0
    while True:
        results = _try_step(active, gradients, packed_tokens)
        ran_out = active[0].trial.processes.any(not isinstance(results, list))
        if isinstance(results, list) and not ran_out:
            return [run.trial.combine(result) for run, result in zip(active, results, strict=True)]
        shares_passes = packed_tokens > 0 and len(active) > 1
        if tries == MEMORY_TRIES or not (shares_passes or any(run.micro_rows > 1 for run in active)):
            raise OutOfMemoryError(
                f"Out of memory with {active[0].micro_rows} rows in a forward pass, after {tries} smaller tries.",
                fix="Lower data.max_length or training.per_device_train_batch_size, or use a smaller base model.",
            ) from (results if isinstance(results, BaseException) else None)
        tries += 1
        for run in active:
            run.trial.adapter.grads.zero_()
            run.memory_share /= 2
            message = f"Out of memory: going on with {run.micro_rows} rows in a forward pass, same effective batch."
            run.trial.emit({"type": "note", "message": message})


def _try_step(
    active: Sequence[TrialRun], gradients: StepGradients, packed_tokens: int
) -> list[StepResult] | RuntimeError | MemoryError:
    """Gradients of one step, or the error that says that memory ran out."""
    try:
        batches = [run.trial.next_batch(run.micro_rows) for run in active]
        return gradients(batches, packed_tokens=int(packed_tokens * min(run.memory_share for run in active)))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return error


def _note(bank: AdapterBank, run: TrialRun, result: StepResult, norm: float) -> None:
    try:
        run.trial.note(result, norm)
    except NonFiniteLossError:
        if run.checkpoints.last is None and run.trial.progress.step:
            save_checkpoint(bank, run, metric=None)
        raise


def _finish_step(bank: AdapterBank, run: TrialRun) -> None:
    """Evaluate and save what is due after a step."""
    started, metric = time.perf_counter(), None
    if run.trial.evaluation_due():
        measured = evaluate(bank, run.trial.index, run.evaluation, run.label_names, run.trial.processes)
        metric = run.trial.judge(measured.metrics)
        if run.trial.progress.best_step == run.trial.progress.step:
            run.measured = {run.trial.progress.step: measured}
    run.trial.progress.seconds += time.perf_counter() - started
    if metric is not None or run.trial.save_due() or _overdue(run):
        save_checkpoint(bank, run, metric=metric)


def _overdue(run: TrialRun) -> bool:
    last = run.checkpoints.last
    return run.trial.progress.seconds - (last.seconds if last else 0.0) > SAVE_INTERVAL_SECONDS


def save_checkpoint(bank: AdapterBank, run: TrialRun, *, metric: float | None) -> None:
    """Save the state after the last step, unless that is done.

    Args:
        metric: value of the choosing metric, more is better; ``None`` when it was not evaluated.
    """
    progress = run.trial.progress
    last = run.checkpoints.last
    if last is not None and last.step == progress.step:
        return
    path = run.checkpoints.save(
        Checkpoint(progress.step, metric, progress.seconds),
        lambda folder: save_state(folder, bank.base, run.trial, base_name=run.base_name),
    )
    run.trial.emit({"type": "checkpoint", "step": progress.step, "path": path.name})
