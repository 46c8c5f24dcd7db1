"""An adapter measured on labelled rows."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loramill.arrays import from_numpy, strings
from loramill.data.prepare import LabelledRows
from loramill.engine.bank import AdapterBank
from loramill.engine.losses import ProblemType, probabilities, row_losses
from loramill.engine.step import LabelledTokens, predict_logits, prediction_tokens
from loramill.errors import ConfigError, NonFiniteLossError, Problem
from loramill.experiments.metrics import lower_is_better
from loramill.files import named_storage_errors
from loramill.training.device import MEMORY_TRIES, is_out_of_memory, named_memory_errors
from loramill.training.metrics import MEASURED, classification_metrics, multi_label_metrics, regression_metrics
from loramill.training.processes import ALONE, Processes

NEEDS_DIFFERENT_LABELS = {"auc", "pearson", "spearman"}
SHOWN_TEXT = 400
"""Characters of each text that are kept with its prediction."""


@dataclass(frozen=True)
class Evaluation:
    """What an adapter says of some rows, and how good that is.

    Attributes:
        logits, probabilities: ``[rows, labels]`` float32 on the CPU.
        losses: ``[rows]``.
        metrics: JSON values by name.
    """

    logits: Tensor
    probabilities: Tensor
    losses: Tensor
    metrics: dict[str, Any]


def evaluate(
    bank: AdapterBank,
    adapter: int,
    data: LabelledTokens,
    label_names: Sequence[str],
    processes: Processes = ALONE,
) -> Evaluation:
    """Measure one adapter of the bank on all rows of ``data``.

    Args:
        processes: that share the rows; each gets the whole result.

    Raises:
        NonFiniteLossError: the adapter gives NaN or infinity for a row.
        OutOfMemoryError: even small batches do not fit.
    """
    logits = _predict_together(bank, adapter, data, processes).float()
    chances = probabilities(logits, data.problem_type)
    losses = row_losses(logits, data.labels, data.problem_type)
    if not torch.isfinite(losses).all():
        raise NonFiniteLossError(
            f"The evaluation loss is not finite for {int((~torch.isfinite(losses)).sum())} of {len(data)} rows.",
            fix="Lower training.learning_rate, set training.bf16=false, or look at the data and the base model; "
            "the last checkpoint is kept.",
        )
    metrics = {"loss": float(losses.mean()), **_metrics(chances, data, label_names), "samples": len(data)}
    return Evaluation(logits, chances, losses, metrics)


def _predict_together(bank: AdapterBank, adapter: int, data: LabelledTokens, processes: Processes) -> Tensor:
    """Logits of all rows, of which every process computes its share."""
    if processes.count == 1:
        return _predict(bank, adapter, data)
    rows = processes.share(np.arange(len(data)))
    logits = torch.zeros(len(data), bank.adapters[adapter].spec.labels)
    if len(rows):
        logits[torch.from_numpy(rows)] = _predict(bank, adapter, data.take(rows)).float()
    return processes.sum_rows(logits)


def _predict(bank: AdapterBank, adapter: int, data: LabelledTokens) -> Tensor:
    """Logits of all rows; out of memory, the batches are halved."""
    for tries in range(MEMORY_TRIES):
        try:
            return predict_logits(bank, adapter, data.rows, token_budget=prediction_tokens(bank.base) >> tries)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
    with named_memory_errors("evaluating"):
        return predict_logits(bank, adapter, data.rows, token_budget=prediction_tokens(bank.base) >> MEMORY_TRIES)


def best_metric_value(metrics: Mapping[str, Any], name: str) -> float:
    """The metric that chooses the best checkpoint, turned so that more is better.

    A metric that is undefined for these rows, such as a correlation with predictions that are all the same or the AUC
    of rows of one class, counts as 0.

    Args:
        name: a ``choosing_metric``.
    """
    value = metrics[name.removeprefix("eval_")]
    if value is None:
        return 0.0
    return -float(value) if lower_is_better(name) else float(value)


def measured_value(score: float, name: str) -> float:
    """The metric behind a ``best_metric_value``."""
    return -score if lower_is_better(name) else score


def choosing_metric(name: str, problem_type: ProblemType) -> str:
    """The metric that ``training.metric_for_best_model`` means; regression has no accuracy, and takes the loss for it.

    Raises:
        ConfigError: no evaluation of this kind of problem has it. Better now than after an epoch.
    """
    if problem_type == "regression" and name == "accuracy":
        return "loss"
    measured, plain = MEASURED[problem_type], name.removeprefix("eval_")
    if plain not in measured:
        near = [known for known in measured if known.startswith(f"{plain}_")]  # f1 is short for f1_macro
        near = near or difflib.get_close_matches(plain, measured, n=1)
        message = f"an evaluation of {problem_type.replace('_', ' ')} measures {', '.join(measured)}"
        raise ConfigError([Problem("training.metric_for_best_model", name, message, near[0] if near else None)])
    return name


def check_defined(metric: str, data: LabelledTokens) -> None:
    """
    Raises:
        ConfigError: the metric is undefined for these rows, as they are all of one class or value.
    """
    if metric.removeprefix("eval_") in NEEDS_DIFFERENT_LABELS and len(data.labels.unique()) < 2:
        message = f"{metric} is undefined where all rows to evaluate on have the same label; loss is not"
        raise ConfigError([Problem("training.metric_for_best_model", metric, message)])


def write_predictions(path: Path, evaluation: Evaluation, data: LabelledTokens, rows: LabelledRows) -> None:
    """One Parquet row for each evaluated row, so that two runs can be compared row by row later.

    Columns: row int64 (of the source), position int64 (in the data version), label, prediction int64, probabilities
    list<float32>, loss float32, text (its beginning, for the report); what has no single class (multi-label) has lists
    for label and prediction, and regression has floats.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    chances = evaluation.probabilities.numpy()
    if data.problem_type == "single_label_classification":
        prediction = chances.argmax(1)
    else:
        prediction = chances[:, 0] if data.problem_type == "regression" else (chances > 0.5).astype(np.int64)
    columns = {
        "row": from_numpy(np.asarray(rows.row_ids)),
        "position": from_numpy(np.asarray(rows.positions)),
        "label": from_numpy(data.labels.numpy()),
        "prediction": from_numpy(prediction),
        "probabilities": from_numpy(chances),
        "loss": from_numpy(evaluation.losses.numpy()),
        "text": strings([text[:SHOWN_TEXT] for text in rows.texts]),
    }
    with named_storage_errors(path):
        pq.write_table(pa.table(columns), path)


def _metrics(chances: Tensor, data: LabelledTokens, label_names: Sequence[str]) -> dict[str, Any]:
    values, labels = chances.double().numpy(), data.labels.numpy()
    if data.problem_type == "single_label_classification":
        return classification_metrics(values, labels, label_names)
    if data.problem_type == "multi_label_classification":
        return multi_label_metrics(values, labels, label_names)
    return regression_metrics(values[:, 0], labels.astype(np.float64))
