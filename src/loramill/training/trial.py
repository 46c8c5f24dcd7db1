"""One adapter's way through its training: which rows come next, what is due after a step, what is remembered.

A run has one trial, a sweep has many; the loop asks each the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from loramill.config.schema import ExperimentConfig, TrainingConfig
from loramill.engine.dropout import DropoutSeed
from loramill.engine.low_rank_adapter import Adapter
from loramill.engine.optim import AdamW, learning_rate, update
from loramill.engine.step import AdapterBatch, LabelledTokens, StepResult
from loramill.engine.token_rows import IntArray
from loramill.errors import NonFiniteLossError
from loramill.training.evaluation import best_metric_value, choosing_metric, measured_value
from loramill.training.processes import ALONE, Processes

EventSink = Callable[[dict[str, Any]], None]


def learn(trials: Sequence[Trial], results: Sequence[StepResult]) -> list[float]:
    """Update the adapters from the gradients of their step, all at once.

    Returns:
        The gradients' norms before clipping; NaN, and values as before, for a trial whose loss is not finite.
    """
    finite = [trial for trial, result in zip(trials, results, strict=True) if math.isfinite(result.loss)]
    norms = update([trial.optimizer for trial in finite], [trial.rate() for trial in finite]) if finite else []
    known = dict(zip(finite, norms, strict=True))
    return [known.get(trial, math.nan) for trial in trials]


@dataclass(frozen=True)
class StepPlan:
    """Lengths of a training in optimizer steps; the last batch of an epoch may be smaller."""

    rows: int
    batch_size: int
    total_steps: int

    @classmethod
    def of(cls, training: TrainingConfig, rows: int, processes: int = 1) -> StepPlan:
        """
        Args:
            processes: that train together; each takes ``effective_batch_size`` rows of a step.
        """
        batch_size = training.effective_batch_size * processes
        per_epoch = math.ceil(rows / batch_size)
        return cls(rows, batch_size, max(1, math.ceil(per_epoch * training.num_train_epochs)))

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / self.batch_size)


@dataclass
class Progress:
    """How far a trial is: all that a resumed run needs besides the adapter and the optimizer.

    Attributes:
        seconds: training time, evaluations and saves included.
        loss_sum, loss_steps: since the last log line.
        best: best value of the choosing metric so far, more is better.
        rung_scores: what a sweep with successive halving measured at the rungs passed.
        history: ``log_history`` of Transformers.
    """

    step: int = 0
    seconds: float = 0.0
    rows: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    total_loss: float = 0.0
    best: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    stopped_early: bool = False
    rung_scores: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


class Trial:
    """An adapter in training.

    Args:
        index: its place in the bank.
        train: rows to learn from.
        emit: receives its events.
        processes: that train it together.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        index: int,
        adapter: Adapter,
        train: LabelledTokens,
        emit: EventSink,
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.index, self.adapter, self.train, self.emit = config, index, adapter, train, emit
        self.processes = processes
        self.plan = StepPlan.of(config.training, len(train), processes.count)
        self.progress = Progress()
        self.optimizer = AdamW(
            adapter, weight_decay=config.training.weight_decay, max_grad_norm=config.training.max_grad_norm
        )
        self.best_metric = choosing_metric(config.training.metric_for_best_model, train.problem_type)
        self._order: tuple[int, IntArray] | None = None

    @property
    def finished(self) -> bool:
        return self.progress.step >= self.plan.total_steps or self.progress.stopped_early

    @property
    def epoch(self) -> float:
        """Passes over the rows so far, fractions included."""
        return self.progress.step / self.plan.steps_per_epoch

    @property
    def evaluation_interval(self) -> int | None:
        """Steps from one evaluation to the next; ``None`` where nothing is evaluated on the way."""
        training = self.config.training
        if training.eval_strategy == "no":
            return None
        every = training.eval_steps or training.logging_steps
        return self.plan.steps_per_epoch if training.eval_strategy == "epoch" else every

    def rate(self) -> float:
        """The learning rate of the next step."""
        training = self.config.training
        return learning_rate(
            self.progress.step,
            peak=training.learning_rate,
            total_steps=self.plan.total_steps,
            warmup_ratio=training.warmup_ratio,
            schedule=training.lr_scheduler_type,
        )

    def next_batch(self, micro_rows: int) -> AdapterBatch:
        """The rows of the next step, or this process's share; they depend on the seed and the step only."""
        training, step = self.config.training, self.progress.step
        drops = self.adapter.spec.dropout > 0 or training.base_dropout
        own_seed = training.seed + (self.processes.rank << 32)  # other rows, other masks
        dropout = DropoutSeed(own_seed, step) if drops else None
        return AdapterBatch(self.index, self.train, self.processes.share(self._rows_of(step)), micro_rows, dropout)

    def combine(self, own: StepResult) -> StepResult:
        """Turn the gradient and the result of this process's share into those of the whole step."""
        return self.processes.combine(self.adapter, own, len(self._rows_of(self.progress.step)))

    def note(self, result: StepResult, norm: float) -> None:
        """Count a step that was taken.

        Args:
            norm: of the gradient before clipping; not finite if the step could not be taken.

        Raises:
            NonFiniteLossError: the loss or the gradient is not finite; the values are those before the step.
        """
        rate = self.rate()
        if not math.isfinite(norm):
            what = "gradient" if math.isfinite(result.loss) else "loss"
            raise NonFiniteLossError(
                f"The {what} of step {self.progress.step + 1} is not finite.",
                fix="Lower training.learning_rate, set training.bf16=false, or look at the data; "
                "the last finite checkpoint is kept.",
            )
        self._count(result)
        if self.progress.step % self.config.training.logging_steps == 0 or self.finished:
            self._log(rate, norm)

    def evaluation_due(self) -> bool:
        """Whether the step just taken ends with an evaluation."""
        every = self.evaluation_interval
        return every is not None and (self.progress.step % every == 0 or self.finished)

    def save_due(self) -> bool:
        """Whether ``save_steps`` asks for a checkpoint after the step just taken."""
        every = self.config.training.save_steps
        return self.finished or (every is not None and self.progress.step % every == 0)

    def judge(self, metrics: Mapping[str, Any]) -> float:
        """Note an evaluation; stop early when the metric has not improved for long enough.

        Returns:
            The choosing metric, more is better.
        """
        progress, patience = self.progress, self.config.training.early_stopping_patience
        value = best_metric_value(metrics, self.best_metric)
        if progress.best is None or value > progress.best:
            progress.best, progress.best_step, progress.evaluations_without_gain = value, progress.step, 0
        else:
            progress.evaluations_without_gain += 1
        progress.stopped_early = patience is not None and progress.evaluations_without_gain >= patience
        numbers = {f"eval_{key}": number for key, number in metrics.items() if isinstance(number, int | float)}
        self._record({"type": "eval", "metrics": numbers}, numbers)
        return value

    def trainer_state(self) -> dict[str, Any]:
        """``trainer_state.json`` in the layout of Transformers."""
        progress, training = self.progress, self.config.training
        best = f"checkpoint-{progress.best_step}" if progress.best_step is not None else None
        return {
            "best_global_step": progress.best_step,
            "best_metric": None if progress.best is None else measured_value(progress.best, self.best_metric),
            "best_model_checkpoint": best,
            "epoch": self.epoch,
            "eval_steps": training.eval_steps or training.logging_steps,
            "global_step": progress.step,
            "is_hyper_param_search": False,
            "is_local_process_zero": True,
            "is_world_process_zero": True,
            "log_history": progress.history,
            "logging_steps": training.logging_steps,
            "max_steps": self.plan.total_steps,
            "num_input_tokens_seen": progress.tokens,
            "num_train_epochs": math.ceil(training.num_train_epochs),
            "save_steps": training.save_steps or self.plan.steps_per_epoch,
            "stateful_callbacks": {},
            "total_flos": 0,
            "train_batch_size": training.per_device_train_batch_size,
            "trial_name": None,
            "trial_params": None,
        }

    def progress_state(self) -> dict[str, Any]:
        """``Progress`` as JSON, without the history, which ``trainer_state`` holds."""
        return {key: value for key, value in asdict(self.progress).items() if key != "history"}

    def restore_progress(self, state: Mapping[str, Any], history: list[dict[str, Any]]) -> None:
        self.progress = Progress(**state, history=history)

    def _rows_of(self, step: int) -> IntArray:
        epoch, place = divmod(step, self.plan.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self.config.training.seed, epoch]).permutation(self.plan.rows)
            self._order = (epoch, order)
        return self._order[1][place * self.plan.batch_size : (place + 1) * self.plan.batch_size]

    def _count(self, result: StepResult) -> None:
        progress = self.progress
        progress.step += 1
        progress.rows += result.rows
        progress.tokens += result.tokens
        progress.padded_tokens += result.padded_tokens
        progress.loss_sum += result.loss
        progress.loss_steps += 1
        progress.total_loss += result.loss

    def _log(self, rate: float, norm: float) -> None:
        progress = self.progress
        loss = progress.loss_sum / progress.loss_steps
        progress.loss_sum, progress.loss_steps = 0.0, 0
        numbers = {"loss": loss, "learning_rate": rate, "grad_norm": norm}
        seconds = max(progress.seconds, 1e-9)
        speed = {"samples_per_second": progress.rows / seconds, "tokens_per_second": progress.tokens / seconds}
        self._record({"type": "log", **numbers, **speed}, numbers)

    def _record(self, event: dict[str, Any], history: dict[str, Any]) -> None:
        where = {"step": self.progress.step, "epoch": round(self.epoch, 4)}
        self.progress.history.append({**history, **where})
        far = {"total_steps": self.plan.total_steps, "train_seconds": round(self.progress.seconds, 3)}
        self.emit({**event, **where, **far})
