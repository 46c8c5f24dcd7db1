"""The page of a sweep."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.parallel_coordinates import CoordinateLine, parallel_coordinates
from loramill.experiments.sweep_report import SweepView, SweptTrial, write_sweep_report


def trial(results: Path, rate: float, accuracy: float | None, status: str = "SUCCESS") -> SweptTrial:
    folder = ExperimentFolder.create(results, "t", datetime.now(UTC))
    for step in (1, 2):
        folder.append_event(
            {"type": "eval", "step": step, "metrics": {"eval_accuracy": (accuracy or 0.1) - 0.1 / step}}
        )
    folder.write_metrics({"eval": {"accuracy": accuracy}})
    return SweptTrial(folder, {"training.learning_rate": rate, "lora.r": 8}, status, accuracy, accuracy)


def test_the_page_ranks_the_trials_and_draws_them(tmp_path: Path) -> None:
    trials = [trial(tmp_path, 1e-3, 0.7), trial(tmp_path, 1e-2, 0.9), trial(tmp_path, 1e-4, 0.95, "PRUNED")]
    trials.append(trial(tmp_path, 1e-1, None, "FAILURE"))
    view = SweepView("sweep <1>", "accuracy", trials[1].folder.id, trials)
    page = write_sweep_report(tmp_path / "sweep", view).read_text(encoding="utf-8")
    assert "sweep &lt;1&gt;" in page
    order = [page.index(f">{place.folder.id}<") for place in (trials[1], trials[0], trials[2], trials[3])]
    assert order == sorted(order)
    assert {plot.stem for plot in (tmp_path / "sweep" / "plots").iterdir()} == {
        "parallel_coordinates",
        "learning_curves",
    }
    assert "<script" not in page


def test_coordinates_stand_by_value_and_the_best_is_drawn_last() -> None:
    lines = [
        CoordinateLine(name, {"rate": rate, "kind": kind}, highlighted=name == "a")
        for name, rate, kind in [("a", 1e-2, "x"), ("b", 1e-3, "y"), ("c", 1e-4, "y")]
    ]
    chart = parallel_coordinates("Tried", lines, ["rate", "kind"])
    heights = {name: float(y) for y, name in re.findall(r'd="M[\d.]+ ([\d.]+)L[^>]*><title>(\w)</title>', chart)}
    assert heights["b"] - heights["a"] == heights["c"] - heights["b"] > 50  # logarithmic: equal factors, equal gaps
    assert chart.rindex("<title>a</title>") > chart.rindex("<title>c</title>")
    assert parallel_coordinates("Nothing", [], ["rate"]) == ""


def test_names_are_escaped() -> None:
    lines = [CoordinateLine("<b>", {"k": "<i>", "m": 1}), CoordinateLine("c", {"k": "d", "m": 2})]
    chart = parallel_coordinates("<t>", lines, ["k", "m"])
    assert "<b>" not in chart
    assert "<i>" not in chart
    json.dumps(chart)


def test_lists_are_values_like_others() -> None:
    """Such as target modules."""
    lines = [CoordinateLine(name, {"lora.target_modules": [name]}) for name in ("query", "value")]
    picture = parallel_coordinates("Modules", lines, ["lora.target_modules"])
    assert "[&#x27;query&#x27;]" in picture
