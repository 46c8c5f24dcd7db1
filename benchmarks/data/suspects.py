"""Flip 5% of the training labels of sample:movie_reviews, and see how many of them come first in each ranking.

    python benchmarks/data/suspects.py [--flipped 0.05] [--folds 3] [--epochs 1] [--seed 0] [--rows N]

The model is that of config/quickstart.yaml. precision@k: share of the first k rows that were really flipped, k being
the number of flipped rows. The plain ranking is by the loss of an ordinary run, which has trained on every row; the
next one by the loss of adapters that have not; the last is what ``loramill data suspects`` prints. It takes as long as
six runs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import argparse
import json
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from loramill.config.load import load_config
from loramill.config.schema import ExperimentConfig
from loramill.data.samples import SampleSplit, cache_folder, load_sample
from loramill.data.suspects import precision_at, rank_by_loss, rank_suspects
from loramill.experiments.folder import ExperimentFolder
from loramill.inference.predictor import Predictor
from loramill.training.out_of_fold import OutOfFold, predict_out_of_fold
from loramill.training.run import run_training

CONFIG = Path(__file__).parents[2] / "config" / "quickstart.yaml"


def write_flipped(folder: Path, share: float, seed: int, most: int | None) -> np.ndarray:
    """Write the sample with some training labels flipped; returns which ones, ``[rows]``."""
    sample = load_sample("movie_reviews", folder)
    every = max(1, len(sample["train"].texts) // (most or len(sample["train"].texts)))  # the source is sorted by class
    splits = {name: SampleSplit(rows.texts[::every], rows.labels[::every]) for name, rows in sample.items()}
    wrong = np.zeros(len(splits["train"].labels), dtype=bool)
    wrong[np.random.default_rng(seed).choice(len(wrong), round(share * len(wrong)), replace=False)] = True
    for name, rows in splits.items():
        flip = wrong if name == "train" else np.zeros(len(rows.labels), dtype=bool)
        lines = (
            json.dumps({"text": text, "label": int(label ^ bool(turned))})
            for text, label, turned in zip(rows.texts, rows.labels, flip, strict=True)
        )
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return wrong


def quickstart(data: Path, epochs: float) -> ExperimentConfig:
    config = load_config(CONFIG)
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"dataset_name": str(data)}),
            "training": config.training.model_copy(update={"num_train_epochs": epochs}),
        }
    )


def plain_run(config: ExperimentConfig, scratch: Path, texts: list[str]) -> np.ndarray:
    """Probabilities of the training rows ``[rows, classes]`` by a run that trained on all of them."""
    folder = ExperimentFolder.create(scratch, "plain", datetime.now().astimezone())
    run_training(config, folder=folder, data_folder=scratch, on_event=lambda _: None, should_stop=lambda: False)
    logits = np.asarray([one.logits for one in Predictor.open(folder).predict(texts)])
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def precisions(plain: np.ndarray, judged: OutOfFold, wrong: np.ndarray) -> dict[str, float]:
    """precision@k of each ranking."""
    labels, k = judged.data.train.labels, int(wrong.sum())
    words = judged.by_words - np.logaddexp.reduce(judged.by_words, axis=1, keepdims=True)
    rankings = {
        "plain loss of a run": rank_by_loss(plain, labels),
        "loss of out-of-fold adapters": rank_by_loss(judged.by_adapters, labels),
        "confident learning on them": rank_suspects(judged.by_adapters, labels).rows,
        "confident learning on words alone": rank_suspects(np.exp(words), labels).rows,
        "both blended: loramill data suspects": rank_suspects(judged.probabilities, labels).rows,
    }
    return {name: precision_at(ranking, wrong, k) for name, ranking in rankings.items()}


def what_else_comes_first(judged: OutOfFold, wrong: np.ndarray, cache: Path) -> dict[str, Any]:
    """Of the first k rows that were not flipped: how far from 0 the mean of their 20 ratings is, and some of them."""
    lines = (cache / "movie_reviews.tsv").read_text(encoding="utf-8").split("\n")
    ratings = {text.strip(): float(rating) for _, rating, text in (line.split("\t", 2) for line in lines if line)}
    rows = judged.data.train
    distance = np.asarray([abs(ratings[text]) for text in rows.texts])
    first = rank_suspects(judged.probabilities, rows.labels).rows[: int(wrong.sum())]
    false = first[~wrong[first]]
    return {
        "rows": len(false),
        "rating_within_1_percent": 100 * float((distance[false] < 1).mean()),
        "of_all_rows_percent": 100 * float((distance < 1).mean()),
        "first": [f"{ratings[rows.texts[row]]:+.2f} {rows.texts[row]}" for row in false[:8]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flipped", type=float, default=0.05)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, help="take about so many rows, to see that it works")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        wrong = write_flipped(scratch, options.flipped, options.seed, options.rows)
        config = quickstart(scratch, options.epochs)
        start = time.perf_counter()
        judged = predict_out_of_fold(
            config, data_folder=scratch, folds=options.folds, on_event=lambda _: None, should_stop=lambda: False
        )
        seconds = time.perf_counter() - start
        assert judged is not None
        plain = plain_run(config, scratch, judged.data.train.texts)
        result = {
            "flipped": int(wrong.sum()),
            "precision_at_k": precisions(plain, judged, wrong),
            "not_flipped_among_the_first_k": what_else_comes_first(judged, wrong, cache_folder(scratch)),
            "seconds_of_data_suspects": seconds,
            "load_1_min": os.getloadavg()[0],
        }
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
