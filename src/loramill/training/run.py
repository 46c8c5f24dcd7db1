"""One training run, from config to a model that is proven to reload. It knows no SQL, no HTTP and no queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer

from loramill.base_models import BaseModelFiles, locate_base_model
from loramill.config.load import dump_config
from loramill.config.schema import ExperimentConfig
from loramill.data.prepare import LabelledRows, PreparedData, prepare_data
from loramill.engine.bank import Adapter, AdapterBank, AdapterSpec
from loramill.engine.base import FrozenBase, load_base
from loramill.engine.families import choose_sites
from loramill.engine.step import LabelledTokens
from loramill.engine.tokenizer import count_tokens, load_tokenizer, tokenize
from loramill.errors import DataRefusedError
from loramill.experiments.environment import describe_environment
from loramill.experiments.folder import ExperimentFolder
from loramill.monitor.performance import PerformanceMonitor
from loramill.monitor.resources import ResourceSample
from loramill.training.checkpoint_manager import CheckpointManager
from loramill.training.device import ComputeDevice, choose_device
from loramill.training.evaluation import Evaluation, as_labels, evaluate, write_predictions
from loramill.training.final_model import save_final_model
from loramill.training.loop import StopReason, TrialRun, train_trials
from loramill.training.reload_gate import check_reload
from loramill.training.training_state import load_state, load_values
from loramill.training.trial import EventSink, Trial


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


@dataclass(frozen=True)
class RunContext:
    """What every stage of a run reads."""

    config: ExperimentConfig
    folder: ExperimentFolder
    compute: ComputeDevice
    files: BaseModelFiles
    tokenizer: Tokenizer
    emit: EventSink

    def note(self, message: str) -> None:
        self.emit({"type": "note", "message": message})


@dataclass(frozen=True)
class FinalModel:
    """The chosen adapter on a float32 base, as whoever reloads it will have it, and what it scores there."""

    base: FrozenBase
    adapter: Adapter
    evaluation: Evaluation


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

    Args:
        data_folder: samples, downloads and stored versions.
        on_event: receives every event as a JSON-able mapping.
        should_stop: asked before each step; when it says yes, a checkpoint is saved and the run ends.
        resume: go on from the last verified checkpoint in ``folder``.
        strict: refuse data with any error-level finding.

    Raises:
        LoramillError: with its code; a verified checkpoint remains if one was ever saved.
    """
    context = _set_up(config, folder, on_event)
    data = _load_data(context, data_folder, strict=strict)
    base = _load_base(context, context.compute.dtype)
    run = _add_adapter(context, base, data)
    if resume:
        _restore(run, base)
    with PerformanceMonitor(folder.path, on_sample=lambda sample: on_event(_resource_event(sample))) as monitor:
        bank = AdapterBank(base, [run.trial.adapter])
        stopped = train_trials(bank, [run], should_stop=should_stop, observer=monitor)
    if stopped:
        return RunResult(folder.id, stopped, {})
    final = _measure_best(context, run)
    metrics = _metrics(run, final.evaluation, {**monitor.summary(), "precision": context.compute.precision})
    _save(context, final, run.evaluation, data, metrics)
    return RunResult(folder.id, "finished", metrics)


def _set_up(config: ExperimentConfig, folder: ExperimentFolder, emit: EventSink) -> RunContext:
    if config.system.num_threads:
        torch.set_num_threads(config.system.num_threads)
    compute = choose_device(config.training.device, config.training.bf16)
    files = locate_base_model(config.model.name)
    folder.write_config(dump_config(config))
    folder.write_environment(describe_environment())
    context = RunContext(config, folder, compute, files, load_tokenizer(files.folder), emit)
    context.note(compute.reason)
    return context


def _load_data(context: RunContext, data_folder: Path, *, strict: bool) -> PreparedData:
    config = context.config
    data = prepare_data(
        config.data,
        num_labels=config.model.num_labels,
        seed=config.training.seed,
        data_folder=data_folder,
        strict=strict,
        count_tokens=lambda texts, pairs: count_tokens(context.tokenizer, texts, pairs),
    )
    for message in data.notes:
        context.note(message)
    context.folder.write_data(
        {
            **data.versions,
            "dataset_name": config.data.dataset_name,
            "label_names": list(data.label_names),
            "problem_type": data.problem_type,
            "train_rows": len(data.train),
            "eval_rows": len(data.eval),
            "report": data.report.as_dict(),
        }
    )
    return data


def _load_base(context: RunContext, dtype: torch.dtype) -> FrozenBase:
    return load_base(context.files.config, context.files.weights, dtype=dtype, device=context.compute.device)


def _add_adapter(context: RunContext, base: FrozenBase, data: PreparedData) -> TrialRun:
    config = context.config
    adapter = Adapter(base, adapter_spec(config, base, labels=max(1, len(data.label_names))))
    train = _tokenise(context, base, "train", data.train, data)
    context.note(f"Training {adapter.values.numel():,} parameters on {len(train):,} rows.")
    return TrialRun(
        trial=Trial(config, 0, adapter, train, context.emit),
        checkpoints=CheckpointManager(context.folder.artifacts),
        evaluation=_tokenise(context, base, "evaluation", data.eval, data),
        label_names=data.label_names,
        base_name=context.files.reference,
        micro_rows=config.training.per_device_train_batch_size,
    )


def adapter_spec(config: ExperimentConfig, base: FrozenBase, *, labels: int) -> AdapterSpec:
    """What the ``lora`` section means on this base."""
    lora = config.lora
    return AdapterSpec(
        rank=lora.r,
        alpha=lora.lora_alpha,
        sites=choose_sites(base.architecture, lora.target_modules),
        dropout=lora.lora_dropout,
        labels=labels,
        seed=config.training.seed,
        rank_stabilised=lora.use_rslora,
        b_rate_ratio=lora.loraplus_lr_ratio,
    )


def _tokenise(
    context: RunContext, base: FrozenBase, split: str, rows: LabelledRows, data: PreparedData
) -> LabelledTokens:
    max_length = min(context.config.data.max_length, base.architecture.max_positions)
    tokens = tokenize(context.tokenizer, rows.texts, rows.pairs, max_length=max_length)
    if tokens.truncated:
        message = f"{tokens.truncated} of {len(rows)} {split} rows are longer than {max_length} tokens"
        if context.config.data.on_long_text == "refuse":
            raise DataRefusedError(f"{message}.", fix="Raise data.max_length, or set data.on_long_text=truncate.")
        context.emit({"type": "warning", "message": f"{message} and are cut."})
    return LabelledTokens(tokens, as_labels(rows.labels), data.problem_type)


def _restore(run: TrialRun, base: FrozenBase) -> None:
    last = run.checkpoints.recover()
    if last:
        load_state(run.checkpoints.path(last), base, run.trial)
    message = f"Resumed from {last.name}." if last else "No checkpoint to resume from: starting at step 0."
    run.trial.emit({"type": "note", "message": message})


def _measure_best(context: RunContext, run: TrialRun) -> FinalModel:
    """The best checkpoint by the metric; the last one where nothing was evaluated."""
    chosen = run.checkpoints.best or run.checkpoints.last
    if chosen is None:
        raise AssertionError("train_trials saves a checkpoint at its end")
    base = _load_base(context, torch.float32)
    load_values(run.checkpoints.path(chosen), base, run.trial)
    adapter = run.trial.adapter
    context.note(f"The final model is {chosen.name}, measured in float32.")
    return FinalModel(base, adapter, evaluate(AdapterBank(base, [adapter]), 0, run.evaluation, run.label_names))


def _metrics(run: TrialRun, evaluation: Evaluation, system: dict[str, Any]) -> dict[str, Any]:
    progress = run.trial.progress
    train = {
        "runtime": progress.seconds,
        "samples_per_second": progress.rows / progress.seconds,
        "tokens_per_second": progress.tokens / progress.seconds,
        "loss": progress.total_loss / progress.step,
        "steps": progress.step,
        "epochs": run.trial.epoch,
        "samples": len(run.trial.train),
        "best_step": progress.best_step,
        "trainable_parameters": run.trial.adapter.values.numel(),
        "stopped_early": progress.stopped_early,
        "base_dropout": False,
    }
    return {"train": train, "eval": evaluation.metrics, "system": system}


def _save(
    context: RunContext, final: FinalModel, evaluated: LabelledTokens, data: PreparedData, metrics: dict[str, Any]
) -> None:
    """Write the final model, prove that it reloads, and only then the metrics, which mark a run as whole."""
    folder = context.folder
    save_final_model(
        folder.final_model,
        final.base,
        final.adapter,
        files=context.files,
        config=context.config,
        label_names=data.label_names,
        problem_type=data.problem_type,
        metrics=final.evaluation.metrics,
    )
    difference = check_reload(folder.final_model, final.base, final.adapter, data.eval.texts, data.eval.pairs)
    metrics["system"]["reload_difference"] = difference
    write_predictions(folder.predictions_file, final.evaluation, evaluated, data.eval.row_ids)
    folder.write_metrics(metrics)


def _resource_event(sample: ResourceSample) -> dict[str, Any]:
    return {"type": "resource", **sample.as_dict()}
