"""Experiments with files, as a finished run leaves them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loramill.config.load import dump_config
from loramill.config.schema import ExperimentConfig
from loramill.experiments.folder import ExperimentFolder

START = datetime(2026, 1, 1, 12, 0, 0).astimezone()


def make_run(
    results: Path,
    name: str = "run",
    right: np.ndarray | None = None,
    *,
    number: int = 0,
    config: dict[str, Any] | None = None,
    eval_version: str = "v-eval",
    texts: list[str] | None = None,
    rows: np.ndarray | None = None,
    source_rows: np.ndarray | None = None,
) -> ExperimentFolder:
    """Write the folder of a finished run.

    Args:
        right: ``[rows]`` which evaluated rows it predicts rightly; nine in ten unless told.
        number: its place among several: one second later and one second longer each.
        rows: places of the evaluated rows in their version; all of them, in order, unless told.
        source_rows: where these rows were in the source; as in the version unless told.
    """
    right = np.arange(200) % 10 != 0 if right is None else right
    folder = ExperimentFolder.create(results, name, START + timedelta(seconds=number))
    folder.write_config(dump_config(ExperimentConfig.model_validate({"experiment_name": name, **(config or {})})))
    folder.write_environment({"python": "3.12", "packages": {"torch": "2"}, "cpu": {"model": "x", "cores": 2}})
    folder.write_data(data_file(len(right), eval_version))
    for event in events():
        folder.append_event(event)
    write_predictions(folder, right, texts, rows, source_rows)
    folder.write_metrics(metrics_file(right, runtime=number + 1.0))
    return folder


def data_file(rows: int, eval_version: str) -> dict[str, Any]:
    finding = {"code": "text_empty", "severity": "warning", "row": 3, "column": "text", "excerpt": "<b>", "fix": "drop"}
    return {
        "train": "v-train",
        "eval": eval_version,
        "dataset_name": "sample:movie_reviews",
        "label_names": ["negative", "positive"],
        "problem_type": "single_label_classification",
        "train_rows": 1000,
        "eval_rows": rows,
        "report": {
            "total_samples": 1200,
            "label_counts": {"negative": 600, "positive": 600},
            "imbalance_ratio": 1.0,
            "is_balanced": True,
            "findings": [finding],
            "finding_counts": {"text_empty": 1},
        },
    }


def events() -> list[dict[str, Any]]:
    start = START.timestamp()
    logs = [
        {"time": start + step, "type": "log", "step": step, "epoch": step / 100, "loss": 0.7 / (1 + step / 50),
         "learning_rate": 1e-3 * (1 - step / 101), "samples_per_second": 90.0, "tokens_per_second": 2500.0}
        for step in range(10, 101, 10)
    ]  # fmt: skip
    evals = [
        {"time": start + step, "type": "eval", "step": step, "metrics": {"eval_loss": 0.5 - step / 400,
         "eval_accuracy": 0.6 + step / 400}}
        for step in (50, 100)
    ]  # fmt: skip
    resources = [{"time": start + s, "type": "resource", "cpu_percent": 150.0, "rss_bytes": 2e8 + s} for s in (1, 5, 9)]
    ends = [
        {"time": start, "type": "status", "status": "STARTED"},
        {"time": start + 101, "type": "status", "status": "SUCCESS"},
    ]
    return [ends[0], *sorted(logs + evals + resources, key=lambda event: event["time"]), ends[1]]


def write_predictions(
    folder: ExperimentFolder,
    right: np.ndarray,
    texts: list[str] | None = None,
    rows: np.ndarray | None = None,
    source_rows: np.ndarray | None = None,
) -> None:
    count = len(right)
    rows = np.arange(count) if rows is None else rows
    label = np.arange(count) % 2
    prediction = np.where(right, label, 1 - label)
    confidence = 0.55 + 0.4 * (np.arange(count) % 7) / 7
    chances = np.where(prediction == 1, confidence, 1 - confidence)
    own = np.where(label == 1, chances, 1 - chances)
    columns = {
        "row": rows if source_rows is None else source_rows,
        "position": rows,
        "label": label,
        "prediction": prediction,
        "probabilities": pa.array([[1 - chance, chance] for chance in chances], type=pa.list_(pa.float32())),
        "loss": pa.array(-np.log(own), type=pa.float32()),
    }
    if texts is not None:
        columns["text"] = texts
    pq.write_table(pa.table(columns), folder.predictions_file)


def metrics_file(right: np.ndarray, runtime: float) -> dict[str, Any]:
    accuracy = float(right.mean())
    hits, misses = int(right[::2].sum()), int((~right[::2]).sum())
    other_hits, other_misses = int(right[1::2].sum()), int((~right[1::2]).sum())
    rates = {"precision": accuracy, "recall": accuracy, "f1": accuracy, "support": len(right) // 2}
    return {
        "train": {"runtime": runtime, "samples_per_second": 100.0, "tokens_per_second": 2600.0, "loss": 0.4},
        "eval": {
            "accuracy": accuracy,
            "loss": 1.0 - accuracy,
            "f1_macro": accuracy,
            "ece": 0.03,
            "confusion_matrix": [[hits, misses], [other_misses, other_hits]],
            "per_class": {"negative": rates, "positive": rates},
        },
        "system": {"cpu_percent_mean": 150.0, "rss_bytes_max": 2e8, "precision": "float32"},
    }
