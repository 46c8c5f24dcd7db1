"""One training run, from config to a model that is proven to reload. It knows no SQL, no HTTP and no queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loramill.config.schema import ExperimentConfig
from loramill.engine.bank import AdapterBank
from loramill.experiments.folder import ExperimentFolder
from loramill.monitor.performance import PerformanceMonitor
from loramill.training import stages
from loramill.training.loop import StopReason, train_trials
from loramill.training.prefix_cache import start_above_frozen_layers
from loramill.training.processes import join_processes
from loramill.training.reload_gate import check_reloads
from loramill.training.trial import EventSink


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        status: ``finished`` with a final model, or why it stopped before; then it can be resumed.
        metrics: the content of ``metrics.json``; empty when stopped.
    """

    experiment_id: str
    status: Literal["finished"] | StopReason
    metrics: dict[str, Any]


def run_training(
    config: ExperimentConfig,
    *,
    folder: ExperimentFolder,
    data_folder: Path,
    on_event: EventSink,
    should_stop: Callable[[], bool],
    resume: bool = False,
    strict: bool = False,
) -> RunResult:
    """Train an adapter and leave everything about it in ``folder``.

    The final model is measured in the compute type; that it reloads is proven in float32.

    Args:
        data_folder: samples, downloads and stored versions.
        on_event: receives every event as a JSON-able mapping.
        should_stop: asked before each step; when it says yes, a checkpoint is saved and the run ends.
        resume: go on from the last verified checkpoint in ``folder``.
        strict: refuse data with any error-level finding.

    Raises:
        LoramillError: with its code; a verified checkpoint remains if one was ever saved.
    """
    processes = join_processes()
    context = stages.set_up(config, folder, on_event if processes.main else _unheard, processes)
    data = stages.load_data_together(context, data_folder, strict=strict)
    if resume:
        stages.require_same_data(folder, data.prepared)
    if processes.main:
        stages.record_data(folder, config, data.prepared)
    base = stages.load_frozen_base(context, context.compute.dtype)
    run = stages.add_adapter(context, base, data)
    if resume:
        stages.restore(run, base)
    start_above_frozen_layers(base, [run], folder.path, context.note)
    with PerformanceMonitor(folder.path, on_sample=context.emit_resources) as monitor:
        stopped = train_trials(AdapterBank(base, [run.trial.adapter]), [run], should_stop=should_stop, observer=monitor)
    if stopped or not processes.main:
        return RunResult(folder.id, stopped or "finished", {})
    evaluation = stages.measure_best(context, run, base)
    stages.save_model(context, base, run.trial.adapter, evaluation, data)
    rows, saved = data.prepared.eval, {folder.final_model: run.trial.adapter}
    exact = stages.load_exact_base(context, base)
    (difference,) = check_reloads(saved, exact, data.eval.rows, rows.texts, rows.pairs)
    system = {**monitor.summary(), "precision": context.compute.precision, "reload_difference": difference}
    metrics = stages.summarise(run, evaluation, system)
    folder.write_metrics(metrics)  # last: they mark the run as whole
    return RunResult(folder.id, "finished", metrics)


def _unheard(_event: dict[str, Any]) -> None:
    """Of several processes the first one speaks."""
