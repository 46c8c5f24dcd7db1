"""A sweep: many trials on one frozen base, trained side by side. Each adapter is the one it would be alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from loramill.config.schema import ExperimentConfig
from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.experiments.folder import ExperimentFolder
from loramill.monitor.performance import PerformanceMonitor
from loramill.sweeps.halving import Halving
from loramill.training import stages
from loramill.training.evaluation import best_metric_value, evaluate
from loramill.training.loop import TrialRun, save_checkpoint, train_trials
from loramill.training.reload_gate import SavedModel, check_reloads
from loramill.training.stages import FinalModel, RunContext, RunData
from loramill.training.trial import EventSink

TrialStatus = Literal["finished", "pruned", "stopped"]


@dataclass(frozen=True)
class SweepTrial:
    """One trial before it starts."""

    config: ExperimentConfig
    folder: ExperimentFolder
    emit: EventSink


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended; a stopped one can be resumed."""

    experiment_id: str
    status: TrialStatus
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Entry:
    """A trial on its way."""

    context: RunContext
    data: RunData
    run: TrialRun
    pruned: bool = False


def run_sweep(
    trials: Sequence[SweepTrial],
    *,
    data_folder: Path,
    should_stop: Callable[[], bool],
    halving: Halving | None = None,
    resume: bool = False,
) -> list[TrialOutcome]:
    """Train every trial; those that share their base model train together.

    Args:
        halving: compare trials on the way and let only the best go on; ``None`` trains all to their end.
        resume: go on from each trial's last checkpoint.

    Returns:
        One outcome for each trial, in their order.

    Raises:
        LoramillError: the first trial that cannot go on ends the sweep; checkpoints remain.
    """
    outcomes: dict[str, TrialOutcome] = {}
    for group in _groups(trials):
        entries, base = _prepare(group, data_folder, resume=resume)
        bank = AdapterBank(base, [entry.run.trial.adapter for entry in entries])
        with PerformanceMonitor(group[0].folder.path) as monitor:
            stopped = _train(bank, entries, should_stop, monitor, halving)
        done = [] if stopped else _finish(entries, base, monitor.summary())
        outcomes |= {outcome.experiment_id: outcome for outcome in done}
    return [outcomes.get(trial.folder.id, TrialOutcome(trial.folder.id, "stopped")) for trial in trials]


def _groups(trials: Sequence[SweepTrial]) -> list[list[SweepTrial]]:
    """Trials by what they must share to train together: base model, device and compute type."""
    groups: dict[object, list[SweepTrial]] = {}
    for trial in trials:
        training = trial.config.training
        groups.setdefault((trial.config.model.name, training.device, training.bf16), []).append(trial)
    return list(groups.values())


def _prepare(trials: Sequence[SweepTrial], data_folder: Path, *, resume: bool) -> tuple[list[_Entry], FrozenBase]:
    contexts = [stages.set_up(trial.config, trial.folder, trial.emit) for trial in trials]
    base = stages.load_frozen_base(contexts[0], contexts[0].compute.dtype)
    loaded: dict[str, RunData] = {}
    entries = []
    for index, context in enumerate(contexts):
        config = context.config
        key = f"{config.data.model_dump_json()} {config.training.seed} {config.model.num_labels}"
        if key not in loaded:
            loaded[key] = stages.load_data(context, data_folder, strict=False)
        stages.record_data(context.folder, config, loaded[key].prepared)
        entries.append(_Entry(context, loaded[key], stages.add_adapter(context, base, loaded[key], index=index)))
        if resume:
            stages.restore(entries[-1].run, base)
    return entries, base


def _train(
    bank: AdapterBank,
    entries: Sequence[_Entry],
    should_stop: Callable[[], bool],
    monitor: PerformanceMonitor,
    halving: Halving | None,
) -> bool:
    """Train rung by rung; returns whether somebody asked to stop."""
    active = list(entries)
    for share in [*(halving.shares() if halving else []), 1.0]:
        for entry in active:
            entry.run.pause_at = max(1, round(entry.run.trial.plan.total_steps * share))
        if train_trials(bank, [entry.run for entry in active], should_stop=should_stop, observer=monitor):
            return True
        if halving and share < 1:
            active = _prune(bank, active, halving)
    return False


def _prune(bank: AdapterBank, active: list[_Entry], halving: Halving) -> list[_Entry]:
    scores = [_score(bank, entry) for entry in active]
    survivors = {id(active[place]) for place in halving.survivors(scores)}
    for entry, score in zip(active, scores, strict=True):
        if id(entry) not in survivors:
            entry.pruned = True
            save_checkpoint(bank, entry.run, metric=score)
            entry.context.note(f"Pruned after step {entry.run.trial.progress.step}: others learn faster.")
    return [entry for entry in active if id(entry) in survivors]


def _score(bank: AdapterBank, entry: _Entry) -> float:
    trial = entry.run.trial
    measured = evaluate(bank, trial.index, entry.run.evaluation, entry.run.label_names)
    return best_metric_value(measured.metrics, trial.best_metric)


def _finish(entries: Sequence[_Entry], base: FrozenBase, system: dict[str, Any]) -> Iterator[TrialOutcome]:
    """Save every model, prove in one fresh process that all of them reload, then write the metrics."""
    finals = [_measure(entry, base) for entry in entries]
    for entry, final in zip(entries, finals, strict=True):
        stages.save_model(entry.context, final, entry.data)
    exact = stages.load_frozen_base(entries[0].context, torch.float32)
    rows = entries[0].data.prepared.eval
    saved = [SavedModel(e.context.folder.final_model, e.run.trial.adapter) for e in entries]
    differences = check_reloads(saved, exact, entries[0].data.eval.rows, rows.texts, rows.pairs)
    for entry, final, difference in zip(entries, finals, differences, strict=True):
        precision = entry.context.compute.precision
        own = {**system, "precision": precision, "reload_difference": difference, "trials_in_pass": len(entries)}
        metrics = stages.summarise(entry.run, final.evaluation, own)
        entry.context.folder.write_metrics(metrics)
        yield TrialOutcome(entry.context.folder.id, "pruned" if entry.pruned else "finished", metrics)


def _measure(entry: _Entry, base: FrozenBase) -> FinalModel:
    """The best checkpoint, measured in the compute type: a sweep measures too many to do it twice."""
    return stages.measure_best(entry.context, entry.run, base)
