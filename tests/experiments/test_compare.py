from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loramill.errors import ConfigError, CorruptFileError
from loramill.experiments.compare import compare_runs


def luck(seed: int, accuracy: float, rows: int = 2000) -> np.ndarray:
    return np.random.default_rng(seed).random(rows) < accuracy


def without_positions(run, rows: int = 200) -> None:
    """Predictions as an earlier loramill wrote them."""
    table = pq.read_table(run.predictions_file)
    pq.write_table(table.drop_columns("position").slice(0, rows), run.predictions_file)


def test_two_seeds_have_no_winner(make_run) -> None:
    runs = [make_run("seed", luck(seed, 0.82), config={"training": {"seed": seed}}) for seed in (1, 2)]
    comparison = compare_runs(runs)
    assert comparison.verdict.winner is None
    assert comparison.verdict.reason.startswith("No winner")
    assert comparison.parameters == {"training.seed": (1, 2)}


def test_a_crippled_run_loses(make_run) -> None:
    good = make_run("good", luck(1, 0.82))
    crippled = make_run("crippled", luck(2, 0.6), config={"training": {"learning_rate": 1e-9}})
    verdict = compare_runs([crippled, good]).verdict
    assert verdict.winner == good.id
    [pair] = verdict.pairs
    assert pair.adjusted_p < 0.05
    assert pair.low > 0.15
    assert pair.difference == pytest.approx(0.22, abs=0.04)


def test_a_winner_beats_every_other(make_run) -> None:
    best, equal, worst = make_run("a", luck(1, 0.83)), make_run("b", luck(2, 0.83)), make_run("c", luck(3, 0.6))
    verdict = compare_runs([best, equal, worst]).verdict
    assert verdict.winner is None
    beaten = {pair.other for pair in verdict.pairs if pair.adjusted_p < 0.05}
    assert beaten == {worst.id}


def test_equal_runs(make_run) -> None:
    verdict = compare_runs([make_run("a"), make_run("b")]).verdict
    assert verdict.winner is None
    assert verdict.pairs[0].adjusted_p == 1.0


def test_only_rows_that_both_evaluated_count(make_run) -> None:
    right = luck(1, 0.8, 500)
    first = make_run("a", right, rows=np.arange(500)[::-1].copy())
    second = make_run("b", right, rows=np.arange(100, 600))
    assert compare_runs([first, second]).verdict.pairs[0].rows == 400


def test_rows_are_matched_by_id_not_by_place(make_run) -> None:
    right = luck(1, 0.8, 500)
    shuffled = np.random.default_rng(0).permutation(500)
    first, second = make_run("a", right), make_run("b", right[shuffled], rows=shuffled)
    [pair] = compare_runs([first, second]).verdict.pairs
    assert (pair.difference, pair.mcnemar_p) == (0.0, 1.0)


def test_a_run_on_stored_rows_is_paired_with_one_on_their_file(make_run) -> None:
    """The file has rows between them that were left out, so that a row has another number there."""
    right = luck(1, 0.8, 500)
    first, second = make_run("file", right, source_rows=np.arange(500) * 2), make_run("version", right)
    [pair] = compare_runs([first, second]).verdict.pairs
    assert (pair.rows, pair.difference, pair.mcnemar_p) == (500, 0.0, 1.0)


def test_whole_predictions_that_lack_positions_are_in_order(make_run) -> None:
    first, second = make_run("a"), make_run("b")
    without_positions(first)
    assert compare_runs([first, second]).verdict.pairs[0].rows == 200


def test_a_part_of_the_rows_that_lacks_positions_is_not_paired(make_run) -> None:
    first, second = make_run("a"), make_run("b")
    without_positions(first, rows=50)
    verdict = compare_runs([first, second]).verdict
    assert (verdict.winner, verdict.pairs) == (None, ())
    assert f"{first.id} evaluated a part" in verdict.reason


def test_other_data_cannot_be_compared(make_run) -> None:
    verdict = compare_runs([make_run("a"), make_run("b", luck(1, 0.1), eval_version="v2")]).verdict
    assert verdict.winner is None
    assert "different data" in verdict.reason


def test_runs_without_predictions_cannot_be_compared(make_run) -> None:
    first, second = make_run("a"), make_run("b", luck(1, 0.1))
    second.predictions_file.unlink()
    verdict = compare_runs([first, second]).verdict
    assert verdict.winner is None
    assert second.id in verdict.reason


def test_regression_is_compared_by_loss(make_run) -> None:
    runs = [make_run("a"), make_run("b")]
    for run, size in zip(runs, (1.0, 0.5), strict=True):
        errors = np.random.default_rng(0).normal(size=300) * size
        rows = np.arange(300)
        columns = {"row": rows, "position": rows, "label": rows * 0.0, "prediction": errors, "loss": errors**2}
        pq.write_table(pa.table(columns), run.predictions_file)
    verdict = compare_runs(runs).verdict
    assert (verdict.winner, verdict.score) == (runs[1].id, "loss")
    assert verdict.pairs[0].mcnemar_p is None


def test_several_labels_are_right_together_or_not_at_all(make_run) -> None:
    runs = [make_run("a"), make_run("b")]
    label = [[0, 1]] * 100
    for run, prediction in zip(runs, ([[0, 1]] * 100, [[0, 1]] * 50 + [[1, 1]] * 50), strict=True):
        rows = np.arange(100)
        columns = {"row": rows, "position": rows, "label": label, "prediction": prediction, "loss": np.zeros(100)}
        pq.write_table(pa.table(columns), run.predictions_file)
    [pair] = compare_runs(runs).verdict.pairs
    assert pair.difference == 0.5


def test_metrics_and_curves_stand_side_by_side(make_run) -> None:
    first, second = make_run("a"), make_run("b")
    second.write_metrics({"eval": {"accuracy": 0.5}})
    second.events_file.unlink()
    comparison = compare_runs([first, second])
    assert comparison.metrics["eval_accuracy"] == (0.9, 0.5)
    assert comparison.metrics["train_runtime"] == (1.0, None)
    assert comparison.curves["eval_accuracy"] == (((50.0, 0.725), (100.0, 0.85)), ())
    json.dumps(comparison.as_dict(), allow_nan=False)


@pytest.mark.parametrize("count", [0, 1, 101])
def test_two_to_a_hundred_runs(make_run, count: int) -> None:
    folder = make_run()
    with pytest.raises(ConfigError, match="2 to 100"):
        compare_runs([folder] * count)


def test_the_same_run_twice(make_run) -> None:
    folder = make_run()
    with pytest.raises(ConfigError, match="different"):
        compare_runs([folder, folder])


def test_damaged_predictions_are_named(make_run) -> None:
    first, second = make_run("a"), make_run("b")
    second.predictions_file.write_bytes(b"PAR1 no")
    with pytest.raises(CorruptFileError, match="eval_predictions"):
        compare_runs([first, second])
