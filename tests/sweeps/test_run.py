"""Passes of a sweep: as many trials as fit, and the same outcome after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from loramill.config.load import parse_config
from loramill.experiments.predictions import read_predictions
from loramill.sweeps.capacity import TENSORS_A_TRIAL, split_by_memory
from loramill.sweeps.entry import comparison_rows
from loramill.sweeps.halving import Halving
from loramill.sweeps.run import SweepTrial, TrialOutcome, run_sweep
from small_models import save_small_model
from small_modules import save_small_module
from small_runs import colour_row, new_folder, small_config, write_rows

RATES = (1e-5, 1e-4, 1e-3, 1e-2)


def make_trials(home: Path, rates: tuple[float, ...], said: list[str]) -> list[SweepTrial]:
    model, rows = home / "model", home / "rows"
    if not model.exists():
        save_small_model("bert", model)
        write_rows(rows)
    config = small_config(model, rows, training__num_train_epochs=2, lora__lora_dropout=0.1).model_dump(mode="json")
    trees = [{**config, "training": {**config["training"], "learning_rate": rate}} for rate in rates]

    def listen(event: dict[str, Any]) -> None:
        said.append(event.get("message", ""))

    return [SweepTrial(parse_config(tree), new_folder(home / "results"), listen) for tree in trees]


def sweep(
    home: Path, trials: list[SweepTrial], stop: Callable[[], bool] = lambda: False, **more: Any
) -> list[TrialOutcome]:
    outcomes = {
        outcome.experiment_id: outcome
        for outcome in run_sweep(trials, data_folder=home / "data", should_stop=stop, **more)
    }
    return [outcomes[trial.folder.id] for trial in trials]


def adapters(trials: list[SweepTrial]) -> list[bytes]:
    return [(trial.folder.final_model / "adapter_model.safetensors").read_bytes() for trial in trials]


def test_what_does_not_fit_is_left() -> None:
    def entry(parameters: int) -> Any:
        adapter = SimpleNamespace(values=torch.zeros(parameters))
        return SimpleNamespace(run=SimpleNamespace(trial=SimpleNamespace(adapter=adapter)))

    taken: list[int] = []

    def entries() -> Any:
        for size in (10, 10, 10, 10):
            taken.append(size)
            yield entry(size)

    assert len(split_by_memory(entries(), torch.device("cpu"), 2 * TENSORS_A_TRIAL * 4 * 10)) == 2
    assert len(taken) == 3  # none is made beyond the first that does not fit
    assert len(split_by_memory(entries(), torch.device("cpu"), 0)) == 1
    assert len(split_by_memory(entries(), torch.device("cpu"))) == 4


@pytest.mark.slow
def test_trials_beyond_the_memory_wait_for_another_pass(tmp_path: Path) -> None:
    said: list[str] = []
    waiting, together = (make_trials(tmp_path, RATES[2:], said) for _ in range(2))
    outcomes = sweep(tmp_path, waiting, memory_bytes=1)
    assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
    assert [outcome.metrics["system"]["trials_in_pass"] for outcome in outcomes] == [1, 1]
    assert any("1 wait for the next pass" in message for message in said)
    sweep(tmp_path, together)
    assert adapters(waiting) == adapters(together)


@pytest.mark.slow
def test_an_interrupted_sweep_prunes_the_same_trials(tmp_path: Path) -> None:
    halving = Halving(keep=2, rungs=2, rows=32)
    whole, broken = (make_trials(tmp_path, RATES, []) for _ in range(2))
    expected = sweep(tmp_path, whole, halving=halving)
    assert sorted(outcome.status for outcome in expected) == ["finished", "pruned", "pruned", "pruned"]
    judged_on = sorted((outcome.status, outcome.metrics["eval"]["samples"]) for outcome in expected)
    at_the_end_of_an_epoch = ("pruned", 48)  # where all rows are measured anyway
    assert judged_on == [("finished", 48), ("pruned", 16), ("pruned", 16), at_the_end_of_an_epoch]
    asked = iter(range(5))  # stops between the first comparison and the second
    stopped = sweep(tmp_path, broken, lambda: next(asked, None) is None, halving=halving)
    assert {outcome.status for outcome in stopped} == {"stopped"}
    resumed = sweep(tmp_path, broken, halving=halving, resume=True)
    assert [outcome.status for outcome in resumed] == [outcome.status for outcome in expected]
    assert adapters(broken) == adapters(whole)


def test_trials_may_cut_texts_at_different_lengths(tmp_path: Path) -> None:
    trials = make_trials(tmp_path, RATES[2:], [])
    trees = [trial.config.model_dump(mode="json") for trial in trials]
    for tree, length in zip(trees, (4, 16), strict=True):
        tree["data"]["max_length"] = length
    cut = [replace(trial, config=parse_config(tree)) for trial, tree in zip(trials, trees, strict=True)]
    outcomes = sweep(tmp_path, cut)
    assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
    assert all(outcome.metrics["system"]["reload_difference"] <= 1e-5 for outcome in outcomes)


def test_trials_may_have_different_numbers_of_classes_where_the_base_runs_through_its_module(tmp_path: Path) -> None:
    model = save_small_module("modernbert", tmp_path / "model")
    sources = write_rows(tmp_path / "two"), write_rows(tmp_path / "three", colour_row)
    configs = [small_config(model, source, training__num_train_epochs=1) for source in sources]
    trials = [SweepTrial(config, new_folder(tmp_path / "results"), lambda _event: None) for config in configs]
    outcomes = sweep(tmp_path, trials)
    assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
    assert [len(outcome.metrics["eval"]["per_class"]) for outcome in outcomes] == [2, 3]


def test_the_machine_is_watched_in_the_events_of_every_trial(tmp_path: Path) -> None:
    heard: dict[str, list[Any]] = {}
    trials = [
        replace(trial, emit=heard.setdefault(trial.folder.id, []).append)
        for trial in make_trials(tmp_path, RATES[2:], [])
    ]
    sweep(tmp_path, trials)
    for events in heard.values():
        assert next(event for event in events if event["type"] == "resource")["rss_bytes"] > 0


def test_trials_are_told_apart_while_all_of_them_still_guess(tmp_path: Path) -> None:
    trials = make_trials(tmp_path, (1e-6, 3e-6, 1e-5, 3e-5), [])
    outcomes = sweep(tmp_path, trials, halving=Halving(keep=4, rungs=1, rows=32))
    pruned = [outcome.metrics["eval"] for outcome in outcomes if outcome.status == "pruned"]
    assert len({metrics["accuracy"] for metrics in pruned}) == 1
    assert [outcome.status for outcome in outcomes] == ["pruned", "pruned", "pruned", "finished"]
    part, whole = (read_predictions(trials[place].folder) for place in (0, 3))
    assert part.position.tolist() == comparison_rows(48, len(part.row)).tolist()
    assert part.label.tolist() == whole.label[part.position].tolist()
