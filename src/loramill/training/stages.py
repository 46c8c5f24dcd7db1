"""The stages of a run. A run goes through them once; a sweep goes through each with all of its trials."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from loramill.base_models import BaseModelFiles, locate_base_model
from loramill.config.load import dump_config
from loramill.config.schema import ExperimentConfig
from loramill.data.prepare import LabelledRows, PreparedData, prepare_data
from loramill.engine.adapters import BaseNeeds, load_any_base, new_adapter, why_own_module
from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.engine.families import check_layers, choose_sites, read_architecture
from loramill.engine.low_rank_adapter import Adapter, AdapterSpec
from loramill.engine.module_base import ModuleBase
from loramill.engine.module_family import lacks_bfloat16, lacks_fast_path, module_architecture
from loramill.engine.step import LabelledTokens
from loramill.engine.tokenizer import count_tokens, load_tokenizer, tokenize
from loramill.errors import ConfigError, DataRefusedError, Problem, ResumeError
from loramill.experiments.environment import describe_environment
from loramill.experiments.folder import ExperimentFolder
from loramill.monitor.resources import ResourceSample
from loramill.training.checkpoint_manager import CheckpointManager
from loramill.training.device import ComputeDevice, choose_device, named_memory_errors
from loramill.training.evaluation import Evaluation, check_defined, evaluate, write_predictions
from loramill.training.final_model import save_final_model
from loramill.training.loop import TrialRun
from loramill.training.processes import ALONE, Processes
from loramill.training.training_state import load_state, load_values
from loramill.training.trial import EventSink, Trial


@dataclass(frozen=True)
class RunContext:
    """What every stage of a run reads."""

    config: ExperimentConfig
    folder: ExperimentFolder
    compute: ComputeDevice
    files: BaseModelFiles
    tokenizer: Tokenizer
    emit: EventSink
    processes: Processes = ALONE

    def note(self, message: str) -> None:
        self.emit({"type": "note", "message": message})

    def emit_resources(self, sample: ResourceSample) -> None:
        """For the performance monitor."""
        self.emit({"type": "resource", **sample.as_dict()})


@dataclass(frozen=True)
class RunData:
    """The rows of a run, as the data layer gave them and as the engine takes them."""

    prepared: PreparedData
    train: LabelledTokens
    eval: LabelledTokens


def set_up(
    config: ExperimentConfig, folder: ExperimentFolder, emit: EventSink, processes: Processes = ALONE
) -> RunContext:
    """Choose the device, find the base model, and note what decides the run."""
    if config.system.num_threads:
        torch.set_num_threads(config.system.num_threads)
    compute = choose_device(config.training.device, config.training.bf16)
    files = locate_base_model(config.model.name)
    if reason := lacks_bfloat16(files.config):
        compute = choose_device(config.training.device, why_float32=reason)
    if processes.main:
        folder.write_config(dump_config(config))
        folder.write_environment(describe_environment())
    context = RunContext(config, folder, compute, files, load_tokenizer(files.folder), emit, processes)
    context.note(compute.reason)
    if processes.count > 1:
        batch = config.training.effective_batch_size
        context.note(f"{processes.count} processes train together, {batch} rows each in a step.")
    return context


def join(shared: RunContext, config: ExperimentConfig, folder: ExperimentFolder, emit: EventSink) -> RunContext:
    """Another run on the base and the device of ``shared``: what was found for one is not looked for again."""
    folder.write_config(dump_config(config))
    folder.write_environment(shared.folder.read_environment())
    context = replace(shared, config=config, folder=folder, emit=emit)
    context.note(context.compute.reason)
    return context


def load_data(context: RunContext, data_folder: Path, *, strict: bool) -> RunData:
    """Read, validate, version and tokenise the data set.

    Raises:
        DataError: the data cannot be trained on.
    """
    config = context.config
    prepared = prepare_data(
        config.data,
        num_labels=config.model.num_labels,
        seed=config.training.seed,
        data_folder=data_folder,
        strict=strict,
        count_tokens=lambda texts, pairs: count_tokens(context.tokenizer, texts, pairs),
    )
    for message in prepared.notes:
        context.note(message)
    train = _tokenise(context, "train", prepared.train, prepared)
    return RunData(prepared, train, _tokenise(context, "evaluation", prepared.eval, prepared))


def load_data_together(context: RunContext, data_folder: Path, *, strict: bool) -> RunData:
    """``load_data``, by the first process before the others, who find what it stored."""
    if not context.processes.main:
        context.processes.wait()
    data = load_data(context, data_folder, strict=strict)
    if context.processes.main:
        context.processes.wait()
    return data


def record_data(folder: ExperimentFolder, config: ExperimentConfig, prepared: PreparedData) -> None:
    """Write ``data.json``: the versions that the run saw, the label mapping, and what validation found."""
    folder.write_data(
        {
            **prepared.versions,
            "dataset_name": config.data.dataset_name,
            "label_names": list(prepared.label_names),
            "problem_type": prepared.problem_type,
            "train_rows": len(prepared.train),
            "eval_rows": len(prepared.eval),
            "report": prepared.report.as_dict(),
        }
    )


def require_same_data(folder: ExperimentFolder, prepared: PreparedData) -> None:
    """A resumed run is the same run only on the same rows.

    Raises:
        ResumeError: ``data.json`` names other versions than the data set has now.
    """
    before = folder.read_data()
    changed = [
        role for role in ("train", "eval") if before.get(role, prepared.versions[role]) != prepared.versions[role]
    ]
    if changed:
        raise ResumeError(
            f"The {' and '.join(changed)} rows are no longer those that {folder.id} started with.",
            fix=f"Restore the data set, or start anew on the stored rows: "
            f"data.dataset_name=version:{before.get('train')}+{before.get('eval')}.",
        )


def load_frozen_base(context: RunContext, dtype: torch.dtype) -> FrozenBase:
    """The base that the run trains on; one line says so when it is not on the fast path."""
    files, device, needs = context.files, context.compute.device, needs_of(context.config)
    if reason := why_own_module(files.config, needs):
        context.note(f"{reason} Training through the module's own forward, which is slower.")
    with named_memory_errors("loading the base model"):
        return load_any_base(files.config, files.folder, files.weights, dtype=dtype, device=device, needs=needs)


def needs_of(config: ExperimentConfig) -> BaseNeeds:
    """What a run asks of its base beyond plain LoRA."""
    return BaseNeeds(dora=config.lora.use_dora, base_dropout=config.training.base_dropout)


def load_exact_base(context: RunContext, base: FrozenBase) -> FrozenBase:
    """The base in float32, in which final models are measured: ``base`` itself if it is that already."""
    return base if base.dtype == torch.float32 else load_frozen_base(context, torch.float32)


def add_adapter(context: RunContext, base: FrozenBase, data: RunData) -> TrialRun:
    """A new adapter with its training state, the first of the bank."""
    config = context.config
    adapter = new_adapter(base, adapter_spec(config, base, labels=max(1, len(data.prepared.label_names))))
    trial = Trial(config, 0, adapter, data.train, context.emit, context.processes)
    check_defined(trial.best_metric, data.eval)
    context.note(f"Training {adapter.values.numel():,} parameters on {len(data.train):,} rows.")
    return TrialRun(
        trial=trial,
        checkpoints=CheckpointManager(context.folder.artifacts, writes=context.processes.main),
        evaluation=data.eval,
        label_names=data.prepared.label_names,
        base_name=context.files.reference,
    )


def adapter_spec(config: ExperimentConfig, base: FrozenBase, *, labels: int) -> AdapterSpec:
    """What the ``lora`` section means on this base.

    Raises:
        ConfigError: it names modules or layers that the base has not, or what cannot be had on it.
    """
    lora = config.lora
    spec = AdapterSpec(
        rank=lora.r,
        alpha=lora.lora_alpha,
        sites=(),
        dropout=lora.lora_dropout,
        labels=labels,
        seed=config.training.seed,
        rank_stabilised=lora.use_rslora,
        b_rate_ratio=lora.loraplus_lr_ratio,
        layers=tuple(sorted(set(lora.layers_to_transform))) if lora.layers_to_transform else None,
    )
    if isinstance(base, ModuleBase):
        if lora.init_lora_weights != "default":
            message = "PiSSA needs a base with a fast path, and no base_dropout"
            raise ConfigError([Problem("lora.init_lora_weights", lora.init_lora_weights, message)])
        modules = () if lora.target_modules == "auto" else tuple(lora.target_modules)
        return replace(spec, modules=modules, dora=lora.use_dora)
    if lora.init_lora_weights != "default" and lora.r > base.architecture.hidden_size:
        message = f"PiSSA takes ranks up to the base's width, {base.architecture.hidden_size}"
        raise ConfigError([Problem("lora.r", lora.r, message)])
    check_layers(base.architecture, spec.layers)
    sites = choose_sites(base.architecture, lora.target_modules)
    return replace(spec, sites=sites, init=lora.init_lora_weights)


def restore(run: TrialRun, base: FrozenBase) -> None:
    """Go back to the last verified checkpoint, if there is one."""
    processes = run.trial.processes
    if not processes.main:
        processes.wait()  # the first puts the folder in order before the others look
    last = run.checkpoints.recover()
    if processes.main:
        processes.wait()
    if last:
        load_state(run.checkpoints.path(last), base, run.trial)
        run.earlier_seconds = run.trial.progress.seconds
    message = f"Resumed from {last.name}." if last else "No checkpoint to resume from: starting at step 0."
    run.trial.emit({"type": "note", "message": message})


def measure_best(context: RunContext, run: TrialRun, base: FrozenBase) -> Evaluation:
    """Take the adapter back to the best checkpoint by the metric, or the last one where nothing was evaluated.

    Returns:
        How good it is; what was measured on the way is not measured again.
    """
    chosen = run.checkpoints.best or run.checkpoints.last
    if chosen is None:
        raise AssertionError("train_trials saves a checkpoint at its end")
    load_values(run.checkpoints.path(chosen), base, run.trial)
    context.note(f"The final model is {chosen.name}.")
    known = run.measured.get(chosen.step)
    return known or evaluate(AdapterBank(base, [run.trial.adapter]), 0, run.evaluation, run.label_names)


def summarise(run: TrialRun, evaluation: Evaluation, system: dict[str, Any]) -> dict[str, Any]:
    """The content of ``metrics.json``."""
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
        "base_dropout": run.trial.config.training.base_dropout,
    }
    return {"train": train, "eval": evaluation.metrics, "system": system}


def save_model(context: RunContext, base: FrozenBase, adapter: Adapter, evaluation: Evaluation, data: RunData) -> None:
    """Write ``final_model/`` and the predictions behind its metrics."""
    save_final_model(
        context.folder.final_model,
        base,
        adapter,
        files=context.files,
        config=context.config,
        label_names=data.prepared.label_names,
        problem_type=data.prepared.problem_type,
        metrics=evaluation.metrics,
    )
    write_predictions(context.folder.predictions_file, evaluation, data.eval, data.prepared.eval)


def _tokenise(context: RunContext, split: str, rows: LabelledRows, prepared: PreparedData) -> LabelledTokens:
    config = context.config.data
    known = context.files.config
    architecture = module_architecture(known) if lacks_fast_path(known) else read_architecture(known)
    max_length = min(config.max_length, architecture.max_positions)
    tokens = tokenize(context.tokenizer, rows.texts, rows.pairs, max_length=max_length)
    if tokens.truncated:
        message = f"{tokens.truncated} of {len(rows)} {split} rows are longer than {max_length} tokens"
        if config.on_long_text == "refuse":
            raise DataRefusedError(f"{message}.", fix="Raise data.max_length, or set data.on_long_text=truncate.")
        context.emit({"type": "warning", "message": f"{message} and are cut."})
    return LabelledTokens(tokens, torch.tensor(rows.labels), prepared.problem_type)
