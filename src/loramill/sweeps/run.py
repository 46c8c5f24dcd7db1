"""A sweep: many trials on one frozen base, trained side by side. Each adapter is the one it would be alone.

What trials share is done once: the base, its tokenizer, rows of the same choice, and one fresh process that reloads
every saved model. What a trial was measured to be on its way is not measured again at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loramill.config.schema import ExperimentConfig
from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.errors import ConfigError, DataError, LoramillError, ModelError, NotFoundError
from loramill.experiments.folder import ExperimentFolder
from loramill.monitor.performance import PerformanceMonitor
from loramill.monitor.resources import ResourceSample
from loramill.sweeps.capacity import split_by_memory
from loramill.sweeps.entry import Entry
from loramill.sweeps.halving import Halving
from loramill.sweeps.rungs import train_rung_by_rung
from loramill.training import stages
from loramill.training.evaluation import best_metric_value
from loramill.training.loop import train_trials
from loramill.training.prefix_cache import start_above_frozen_layers
from loramill.training.reload_gate import check_reloads
from loramill.training.stages import RunContext, RunData
from loramill.training.trial import EventSink

TrialStatus = Literal["finished", "pruned", "stopped", "failed"]
UNTRAINABLE = (ConfigError, DataError, ModelError, NotFoundError)
"""What is wrong with a trial's own base, rows or config, and no matter of the others."""
EVENTS_A_SECOND = 50
"""Readings of the machine in the events of all trials together: writing them must not slow the pass down."""


@dataclass(frozen=True)
class SweepTrial:
    """One trial before it starts."""

    config: ExperimentConfig
    folder: ExperimentFolder
    emit: EventSink


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended; a stopped one can be resumed, a failed one says why it could not go on.

    Attributes:
        metric: what chose its best checkpoint.
        score: its value, turned so that more is better.
    """

    experiment_id: str
    status: TrialStatus
    metrics: dict[str, Any] = field(default_factory=dict)
    metric: str | None = None
    score: float | None = None
    error: LoramillError | None = None


def run_sweep(
    trials: Sequence[SweepTrial],
    *,
    data_folder: Path,
    should_stop: Callable[[], bool],
    halving: Halving | None = None,
    resume: bool = False,
    memory_bytes: int | None = None,
) -> Iterator[TrialOutcome]:
    """Train every trial; those that share their base model train together, as many at a time as fit in memory.

    Args:
        halving: compare trials on the way and let only the best go on; ``None`` trains all to their end.
        resume: go on from each trial's last checkpoint.
        memory_bytes: what adapters and optimizers may take; by default a share of what is free.

    Yields:
        One outcome for each trial, as soon as it has ended. A trial whose loss is not finite fails alone, and so does
        one that cannot be trained: that comes last, when it is known whether any can.

    Raises:
        LoramillError: what no trial without an outcome could go on after, such as a full disk, or no trial can be
            trained; checkpoints remain.
    """
    failed: list[TrialOutcome] = []
    for group in _groups(trials):
        pending = list(group)
        shared = None if should_stop() else _load_shared(group, data_folder, failed)
        while shared and pending and not should_stop():
            entries, pending = _choose(shared, pending, failed, memory_bytes)
            if entries:
                _set_out(shared, entries, resume=resume)
                yield from _run(shared, entries, should_stop, halving)
        ended = {outcome.experiment_id for outcome in failed}
        yield from (TrialOutcome(trial.folder.id, "stopped") for trial in pending if trial.folder.id not in ended)
    if failed and failed[0].error and len(failed) == len(trials):
        raise failed[0].error
    yield from failed


@dataclass
class _Shared:
    """What the trials of one group have in common."""

    context: RunContext
    base: FrozenBase
    data_folder: Path
    rows: dict[str, RunData] = field(default_factory=dict)

    def data_of(self, context: RunContext) -> RunData:
        """The rows of a trial; those that choose the same rows read them once."""
        config = context.config
        key = f"{config.data.model_dump_json()} {config.training.seed} {config.model.num_labels}"
        if key not in self.rows:
            self.rows[key] = stages.load_data(context, self.data_folder, strict=False)
        return self.rows[key]


def _groups(trials: Sequence[SweepTrial]) -> list[list[SweepTrial]]:
    """Trials by what they must share to train together: base model and what they need of it, device, compute type."""
    groups: dict[object, list[SweepTrial]] = {}
    for trial in trials:
        training = trial.config.training
        needs = stages.needs_of(trial.config)
        groups.setdefault((trial.config.model.name, needs, training.device, training.bf16), []).append(trial)
    return list(groups.values())


def _load_shared(trials: Sequence[SweepTrial], data_folder: Path, failed: list[TrialOutcome]) -> _Shared | None:
    """``None`` when the base cannot be used: these trials are among the ``failed`` then."""
    first = trials[0]
    try:
        context = stages.set_up(first.config, first.folder, first.emit)
        return _Shared(context, stages.load_frozen_base(context, context.compute.dtype), data_folder)
    except UNTRAINABLE as error:
        failed += [_untrainable(trial, error) for trial in trials]
        return None


def _untrainable(trial: SweepTrial, error: LoramillError) -> TrialOutcome:
    trial.emit({"type": "warning", "message": f"{trial.folder.id} cannot be trained: {error.message}"})
    return TrialOutcome(trial.folder.id, "failed", error=error)


def _choose(
    shared: _Shared, pending: Sequence[SweepTrial], failed: list[TrialOutcome], memory_bytes: int | None
) -> tuple[list[Entry], list[SweepTrial]]:
    """The trials of the next pass, and those that have to wait for another; what cannot be trained is ``failed``."""
    entries = split_by_memory(_iter_entries(shared, pending, failed), shared.base.device, memory_bytes)
    gone = {entry.context.folder.id for entry in entries} | {outcome.experiment_id for outcome in failed}
    waiting = [trial for trial in pending if trial.folder.id not in gone]
    if waiting:
        shared.context.note(f"{len(entries)} trials fit in memory at once; {len(waiting)} wait for the next pass.")
    return entries, waiting


def _iter_entries(shared: _Shared, trials: Sequence[SweepTrial], failed: list[TrialOutcome]) -> Iterator[Entry]:
    for trial in trials:
        try:
            yield _enter(shared, trial)
        except UNTRAINABLE as error:
            failed.append(_untrainable(trial, error))


def _enter(shared: _Shared, trial: SweepTrial) -> Entry:
    context = stages.join(shared.context, trial.config, trial.folder, trial.emit)
    data = shared.data_of(context)
    stages.record_data(context.folder, context.config, data.prepared)
    return Entry(context, data, stages.add_adapter(context, shared.base, data))


def _set_out(shared: _Shared, entries: Sequence[Entry], *, resume: bool) -> None:
    """Each to its place in the bank, and to where it was when it is resumed."""
    for index, entry in enumerate(entries):
        entry.run.trial.index = index
        if resume:
            stages.restore(entry.run, shared.base)
    runs = [entry.run for entry in entries]
    start_above_frozen_layers(shared.base, runs, shared.context.folder.path, shared.context.note)


def _run(
    shared: _Shared, entries: Sequence[Entry], should_stop: Callable[[], bool], halving: Halving | None
) -> Iterator[TrialOutcome]:
    """One pass: train its trials, and finish them unless somebody asked to stop."""
    bank = AdapterBank(shared.base, [entry.run.trial.adapter for entry in entries])
    with PerformanceMonitor(
        entries[0].context.folder.path,
        interval=max(1.0, len(entries) / EVENTS_A_SECOND),
        on_sample=_telling_all(entries),
    ) as monitor:
        runs = [entry.run for entry in entries]
        if halving:
            stopped = train_rung_by_rung(bank, entries, halving, should_stop=should_stop, observer=monitor)
        else:
            stopped = train_trials(bank, runs, should_stop=should_stop, observer=monitor, isolate=True) is not None
    for entry in entries:
        if entry.failed:
            yield TrialOutcome(entry.context.folder.id, "failed", error=entry.run.failure)
    going = [entry for entry in entries if not entry.failed]
    if stopped:
        yield from (TrialOutcome(entry.context.folder.id, "stopped") for entry in going)
    elif going:
        yield from _finish(going, shared.base, monitor.summary())


def _telling_all(entries: Sequence[Entry]) -> Callable[[ResourceSample], None]:
    """A reading of the machine is an event of every trial."""

    def tell(sample: ResourceSample) -> None:
        for entry in entries:
            entry.context.emit_resources(sample)

    return tell


def _finish(entries: Sequence[Entry], base: FrozenBase, system: dict[str, Any]) -> Iterator[TrialOutcome]:
    """Save every model, prove in one fresh process that all of them reload, then write the metrics.

    They are measured in the compute type: a sweep measures too many to do it twice.
    """
    evaluations = [stages.measure_best(entry.context, entry.run, base) for entry in entries]
    for entry, evaluation in zip(entries, evaluations, strict=True):
        data = entry.data_behind(evaluation)
        stages.save_model(entry.context, base, entry.run.trial.adapter, evaluation, data)
    exact = stages.load_exact_base(entries[0].context, base)
    differences = _check_reloads(entries, exact)
    for entry, evaluation in zip(entries, evaluations, strict=True):
        precision, difference = entry.context.compute.precision, differences[entry.context.folder.id]
        own = {**system, "precision": precision, "reload_difference": difference, "trials_in_pass": len(entries)}
        metrics = stages.summarise(entry.run, evaluation, own)
        entry.context.folder.write_metrics(metrics)
        metric = entry.run.trial.best_metric
        yield TrialOutcome(
            experiment_id=entry.context.folder.id,
            status="pruned" if entry.pruned else "finished",
            metrics=metrics,
            metric=metric.removeprefix("eval_"),
            score=best_metric_value(evaluation.metrics, metric),
        )


def _check_reloads(entries: Sequence[Entry], exact: FrozenBase) -> dict[str, float]:
    """Experiment id -> difference; one fresh process for all that cut texts at the same length."""
    alike: dict[int, list[Entry]] = {}
    for entry in entries:
        alike.setdefault(entry.context.config.data.max_length, []).append(entry)
    found: dict[str, float] = {}
    for group in alike.values():
        tokens, rows = group[0].data.eval.rows, group[0].data.prepared.eval
        saved = {entry.context.folder.final_model: entry.run.trial.adapter for entry in group}
        differences = check_reloads(saved, exact, tokens, rows.texts, rows.pairs)
        found |= {entry.context.folder.id: own for entry, own in zip(group, differences, strict=True)}
    return found
