from __future__ import annotations

import csv
import io

import numpy as np

from loramill.experiments.compare import compare_runs
from loramill.experiments.pages import (
    DataTable,
    comparison_page,
    comparison_table,
    group_page,
    group_table,
    metrics_page,
    metrics_table,
)
from loramill.experiments.statistics import GroupStatistics, MetricStatistics

GROUPS = [
    GroupStatistics("bert", 3, 2, 2, 0.8, 0.1, 0.7, 0.9, 60.0, "a"),
    GroupStatistics("roberta", 1, 1, 1, 0.9, 0.0, 0.9, 0.9, 90.0, "b"),
    GroupStatistics(None, 1, 0, 0, None, None, None, None, None, None),
]


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_csv_holds_full_numbers_and_no_formula() -> None:
    table = DataTable(("name", "value"), (("=1+1", 1 / 3), ("@x", -5), ("a,b\n", None), ("list", [1, "中"])))
    assert rows(table.as_csv()) == [
        ["name", "value"],
        ["'=1+1", repr(1 / 3)],
        ["'@x", "-5"],
        ["a,b\n", ""],
        ["list", '[1, "中"]'],
    ]


def test_groups_come_best_first() -> None:
    assert [row[0] for row in group_table("model", "eval_accuracy", GROUPS).rows] == ["roberta", "bert", None]
    assert [row[0] for row in group_table("model", "eval_loss", GROUPS).rows] == ["bert", "roberta", None]


def test_pages_show_their_tables() -> None:
    page = group_page("model", "eval_accuracy", GROUPS)
    assert page.count("<svg") == 2
    assert "roberta" in page
    metrics = [MetricStatistics("eval_auc", 2, 0.9, 0.01, 0.89, 0.91, "a")]
    assert "0.89" in metrics_page(metrics)
    assert metrics_table(metrics).rows[0][0] == "eval_auc"


def test_a_comparison_as_table_and_page(make_run) -> None:
    good = make_run("good", np.arange(500) % 10 != 0)
    bad = make_run("bad", np.arange(500) % 2 == 0, config={"training": {"seed": 7}})
    comparison = compare_runs([good, bad])
    table = comparison_table(comparison)
    assert table.columns == ("name", good.id, bad.id)
    assert ("training.seed", 42, 7) in table.rows
    page = comparison_page(comparison)
    assert f"Winner: {good.id}" in page
    assert 'class="number best">0.9<' in page
    assert page.count("<svg") == 4
