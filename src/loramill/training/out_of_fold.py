"""What models that never saw a row say of it: k adapters on one base, and word counts, each without one fold."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from loramill.config.schema import ExperimentConfig
from loramill.data.naive_bayes import token_features, word_log_likelihoods
from loramill.data.prepare import PreparedData
from loramill.data.suspects import blend
from loramill.engine.adapters import new_adapter
from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.engine.step import LabelledTokens, predict_logits
from loramill.engine.token_rows import IntArray
from loramill.errors import LabelError
from loramill.experiments.folder import ExperimentFolder
from loramill.monitor.performance import PerformanceMonitor
from loramill.training import stages
from loramill.training.checkpoint_manager import CheckpointManager
from loramill.training.loop import TrialRun, train_trials
from loramill.training.trial import EventSink, Trial

LEAST_EPOCHS = 2
"""Five judges found 50% of the flipped labels of movie reviews with one epoch, 53% with two: docs/benchmarks/data.md"""


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold opinions of the training rows, and the rows.

    Attributes:
        by_adapters: probabilities ``[rows, classes]`` of the adapters alone.
        by_words: log-likelihoods ``[rows, classes]`` of naive Bayes on the tokens.
        probabilities: both blended, ``[rows, classes]``.
    """

    by_adapters: npt.NDArray[np.float64]
    by_words: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]
    data: PreparedData


def predict_out_of_fold(
    config: ExperimentConfig,
    *,
    data_folder: Path,
    folds: int,
    on_event: EventSink,
    should_stop: Callable[[], bool],
) -> OutOfFold | None:
    """Train ``folds`` adapters side by side and let each judge the rows that it did not train on.

    Nothing is kept. It takes ``folds - 1`` times as long as the run itself, and twice that for a run of one epoch.

    Returns:
        ``None`` when it was stopped.

    Raises:
        LabelError: the task has no single class for each row.
    """
    with tempfile.TemporaryDirectory(prefix="loramill-folds-") as scratch:
        folder = ExperimentFolder.create(Path(scratch), "folds", datetime.now().astimezone())
        context = stages.set_up(_for_judges(config), folder, on_event)
        data = stages.load_data(context, data_folder, strict=False)
        if data.train.problem_type != "single_label_classification":
            raise LabelError("Only rows with a single class each can be mislabelled in this sense.")
        base = stages.load_frozen_base(context, context.compute.dtype)
        labels = data.prepared.train.labels.astype(np.int64)
        held_out = stratified_folds(labels, folds, config.training.seed)
        runs = [_run_without(context, base, data, held_out != fold, fold) for fold in range(folds)]
        bank = AdapterBank(base, [run.trial.adapter for run in runs])
        with PerformanceMonitor(folder.path) as monitor:
            if train_trials(bank, runs, should_stop=should_stop, observer=monitor):
                return None
    return _opinions(_predict(bank, data.train, held_out), data, labels, held_out)


def stratified_folds(labels: IntArray, folds: int, seed: int) -> IntArray:
    """Fold of every row ``[rows]``; each class is spread evenly over the folds."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    assigned = np.empty(len(labels), dtype=np.int64)
    assigned[by_class] = np.arange(len(labels)) % folds
    return assigned


def _for_judges(config: ExperimentConfig) -> ExperimentConfig:
    """Nothing is evaluated on the way; and who saw fewer rows than the run may see them twice."""
    changes: dict[str, Any] = {
        "eval_strategy": "no",
        "early_stopping_patience": None,
        "save_steps": None,
        "num_train_epochs": max(LEAST_EPOCHS, config.training.num_train_epochs),
    }
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def _run_without(
    context: stages.RunContext, base: FrozenBase, data: stages.RunData, kept: npt.NDArray[np.bool_], fold: int
) -> TrialRun:
    config = context.config
    adapter = new_adapter(base, stages.adapter_spec(config, base, labels=len(data.prepared.label_names)))
    return TrialRun(
        trial=Trial(config, fold, adapter, data.train.take(np.flatnonzero(kept)), context.emit),
        checkpoints=CheckpointManager(context.folder.artifacts / f"fold-{fold}"),
        evaluation=data.eval,
        label_names=data.prepared.label_names,
        base_name=context.files.reference,
    )


def _opinions(logits: torch.Tensor, data: stages.RunData, labels: IntArray, held_out: IntArray) -> OutOfFold:
    rows = data.train.rows
    features = token_features(rows.token_ids, rows.starts)
    by_words = word_log_likelihoods(features, labels, held_out, classes=logits.shape[1])
    logarithms = torch.log_softmax(logits.double(), dim=1).numpy()
    return OutOfFold(np.exp(logarithms), by_words, blend([logarithms, by_words], labels), data.prepared)


def _predict(bank: AdapterBank, train: LabelledTokens, held_out: IntArray) -> torch.Tensor:
    """Logits of every row ``[rows, classes]``, from the adapter that did not train on it."""
    logits = torch.empty(len(train), bank.adapters[0].spec.labels)
    for fold in range(len(bank.adapters)):
        rows = np.flatnonzero(held_out == fold)
        logits[torch.from_numpy(rows)] = predict_logits(bank, fold, train.rows.take(rows)).float()
    return logits
