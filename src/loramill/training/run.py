"""One training run, from config to a model that is proven to reload. It knows no SQL, no HTTP and no queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from loramill.base_models import BaseModelFiles, locate_base_model
from loramill.config.load import dump_config
from loramill.config.schema import ExperimentConfig
from loramill.data.prepare import LabelledRows, PreparedData, prepare_data
from loramill.engine.bank import Adapter, AdapterBank, AdapterSpec
from loramill.engine.base import FrozenBase, load_base
from loramill.engine.families import choose_sites
from loramill.engine.step import LabelledTokens
from loramill.engine.tokenizer import Tokenizer, count_tokens, load_tokenizer, tokenize
from loramill.errors import DataRefusedError, ResumeError
from loramill.experiments.environment import describe_environment
from loramill.experiments.folder import ExperimentFolder
from loramill.monitor.performance import PerformanceMonitor
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
    compute = _set_up(config, folder, on_event)
    files = locate_base_model(config.model.name)
    tokenizer = load_tokenizer(files.folder)
    data = _load_data(config, folder, data_folder, tokenizer, on_event, strict=strict)
    base = load_base(files.config, files.weights, dtype=compute.dtype, device=compute.device)
    bank, run = _add_adapter(config, folder, base, files, tokenizer, data, on_event)
    if resume:
        _restore(run, base)
    with PerformanceMonitor(
        folder.path, on_sample=lambda sample: on_event({"type": "resource", **sample.as_dict()})
    ) as monitor:
        stopped = train_trials(bank, [run], should_stop=should_stop, observer=monitor)
        if stopped:
            return RunResult(folder.id, stopped, {})
        exact, evaluation = _measure_best(run, files, compute)
        metrics = _metrics(run, evaluation, {**monitor.summary(), "precision": compute.precision})
    _save(config, folder, files, exact, run, data, evaluation, metrics)
    return RunResult(folder.id, "finished", metrics)


def _set_up(config: ExperimentConfig, folder: ExperimentFolder, on_event: EventSink) -> ComputeDevice:
    if config.system.num_threads:
        torch.set_num_threads(config.system.num_threads)
    compute = choose_device(config.training.device, config.training.bf16)
    on_event({"type": "note", "message": compute.reason})
    folder.write_config(dump_config(config))
    folder.write_environment(describe_environment())
    return compute


def _load_data(
    config: ExperimentConfig,
    folder: ExperimentFolder,
    data_folder: Path,
    tokenizer: Tokenizer,
    on_event: EventSink,
    *,
    strict: bool,
) -> PreparedData:
    data = prepare_data(
        config.data,
        num_labels=config.model.num_labels,
        seed=config.training.seed,
        data_folder=data_folder,
        strict=strict,
        count_tokens=lambda texts, pairs: count_tokens(tokenizer, texts, pairs),
    )
    for message in data.notes:
        on_event({"type": "note", "message": message})
    folder.write_data(
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


def _add_adapter(
    config: ExperimentConfig,
    folder: ExperimentFolder,
    base: FrozenBase,
    files: BaseModelFiles,
    tokenizer: Tokenizer,
    data: PreparedData,
    on_event: EventSink,
) -> tuple[AdapterBank, TrialRun]:
    adapter = Adapter(base, adapter_spec(config, base, labels=max(1, len(data.label_names))))
    train = _tokenise("train", data.train, config, base, tokenizer, data, on_event)
    run = TrialRun(
        trial=Trial(config, 0, adapter, train, on_event),
        checkpoints=CheckpointManager(folder.artifacts),
        evaluation=_tokenise("evaluation", data.eval, config, base, tokenizer, data, on_event),
        label_names=data.label_names,
        base_name=files.reference,
        micro_rows=config.training.per_device_train_batch_size,
    )
    rows, parameters = len(train), adapter.values.numel()
    on_event({"type": "note", "message": f"Training {parameters:,} parameters on {rows:,} rows."})
    return AdapterBank(base, [adapter]), run


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
    split: str,
    rows: LabelledRows,
    config: ExperimentConfig,
    base: FrozenBase,
    tokenizer: Tokenizer,
    data: PreparedData,
    on_event: EventSink,
) -> LabelledTokens:
    max_length = min(config.data.max_length, base.architecture.max_positions)
    tokens = tokenize(tokenizer, rows.texts, rows.pairs, max_length=max_length)
    if tokens.truncated:
        message = f"{tokens.truncated} of {len(rows)} {split} rows are longer than {max_length} tokens"
        if config.data.on_long_text == "refuse":
            raise DataRefusedError(f"{message}.", fix="Raise data.max_length, or set data.on_long_text=truncate.")
        on_event({"type": "warning", "message": f"{message} and are cut."})
    return LabelledTokens(tokens, as_labels(rows.labels), data.problem_type)


def _restore(run: TrialRun, base: FrozenBase) -> None:
    last = run.checkpoints.recover()
    if last is None:
        run.trial.emit({"type": "note", "message": "No checkpoint to resume from: starting at step 0."})
        return
    load_state(run.checkpoints.path(last), base, run.trial)
    run.trial.emit({"type": "note", "message": f"Resumed from {last.name}."})


def _measure_best(run: TrialRun, files: BaseModelFiles, compute: ComputeDevice) -> tuple[FrozenBase, Evaluation]:
    """Take the best checkpoint's values and measure them in float32, as whoever reloads the model will."""
    chosen = run.checkpoints.best or run.checkpoints.last
    if chosen is None:
        raise ResumeError("The run has finished and left no checkpoint.", fix="Start it anew.")
    exact = load_base(files.config, files.weights, dtype=torch.float32, device=compute.device)
    load_values(run.checkpoints.path(chosen), exact, run.trial)
    bank = AdapterBank(exact, [run.trial.adapter])
    evaluation = evaluate(bank, 0, run.evaluation, run.label_names)
    run.trial.emit({"type": "note", "message": f"The final model is {chosen.name}, measured in float32."})
    return exact, evaluation


def _metrics(run: TrialRun, evaluation: Evaluation, system: dict[str, Any]) -> dict[str, Any]:
    progress = run.trial.progress
    train = {
        "runtime": progress.seconds,
        "samples_per_second": progress.rows / progress.seconds,
        "tokens_per_second": progress.tokens / progress.seconds,
        "loss": progress.total_loss / max(1, progress.step),
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
    config: ExperimentConfig,
    folder: ExperimentFolder,
    files: BaseModelFiles,
    exact: FrozenBase,
    run: TrialRun,
    data: PreparedData,
    evaluation: Evaluation,
    metrics: dict[str, Any],
) -> None:
    """Write the final model, prove that it reloads, and only then the metrics, which mark a run as whole."""
    adapter = run.trial.adapter
    save_final_model(
        folder.final_model,
        exact,
        adapter,
        files=files,
        config=config,
        label_names=data.label_names,
        problem_type=data.problem_type,
        metrics=evaluation.metrics,
    )
    difference = check_reload(folder.final_model, exact, adapter, data.eval.texts, data.eval.pairs)
    metrics["system"]["reload_difference"] = difference
    write_predictions(folder.predictions_file, evaluation, run.evaluation, data.eval.row_ids)
    folder.write_metrics(metrics)
