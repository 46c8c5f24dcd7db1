"""Rows judged by adapters that did not see them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from loramill.data.suspects import rank_suspects
from loramill.training.out_of_fold import predict_out_of_fold, stratified_folds
from small_models import save_small_model
from small_runs import small_config, write_rows


def test_folds_spread_each_class_evenly_and_depend_on_the_seed() -> None:
    labels = np.array([0] * 23 + [1] * 7)
    folds = stratified_folds(labels, 5, seed=1)
    for label in (0, 1):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(folds, stratified_folds(labels, 5, seed=2))


def test_flipped_labels_come_first(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", train=160)
    flipped = set(range(0, 160, 16))
    lines = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    for row in flipped:
        lines[row]["label"] = 1 - lines[row]["label"]
    (data / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = small_config(save_small_model("bert", tmp_path / "model"), data)

    judged = predict_out_of_fold(
        config, data_folder=tmp_path / "home", folds=4, on_event=lambda _event: None, should_stop=lambda: False
    )

    assert judged is not None
    ranked = rank_suspects(judged.probabilities, judged.data.train.labels)
    suspects = {int(judged.data.train.row_ids[row]) for row in ranked.rows[: len(flipped)]}
    assert len(suspects & flipped) >= 0.7 * len(flipped)
