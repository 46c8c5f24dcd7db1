"""What a sweep varies."""

from __future__ import annotations

import sys

import pytest

from loramill.errors import ConfigError
from loramill.sweeps.space import Choice, Range, Sampler, choose_trials, parse_space

KEYS = ["lora.r", "training.seed", "training.logging_steps", "training.save_steps", "training.eval_steps"]


def test_lists_are_choices_and_dots_are_ranges() -> None:
    space = parse_space(["lora.r=4,8", "learning_rate=1e-4..1e-2", "data.max_length=32..64"])
    assert space.dimensions == (
        Choice("lora.r", (4, 8)),
        Range("training.learning_rate", 1e-4, 1e-2, whole=False),
        Range("data.max_length", 32, 64, whole=True),
    )
    assert space.combinations is None
    assert space.ranged


@pytest.mark.parametrize(
    ("assignment", "values"),
    [
        ("model.name=../models/a", ("../models/a",)),
        ("model.name=../models/a,../models/b", ("../models/a", "../models/b")),
        ("data.dataset_name=rows/../other", ("rows/../other",)),
        ("experiment_name=1..2", ("1..2",)),
        ('data.text_column="1e3"', ("1e3",)),
    ],
)
def test_dots_in_a_path_are_no_range(assignment: str, values: tuple[str, ...]) -> None:
    assert parse_space([assignment]).dimensions == (Choice(assignment.partition("=")[0], values),)


@pytest.mark.parametrize(
    ("assignment", "whole"),
    [
        ("training.learning_rate=1..2", False),
        ("lora.lora_dropout=0..1", False),
        ("training.max_seconds=1..2", False),
        ("data.train_samples=1..2", True),
        ("lora.r=1e0..2e0", True),
    ],
)
def test_the_type_of_the_key_decides_what_a_range_draws(assignment: str, whole: bool) -> None:
    (dimension,) = parse_space([assignment]).dimensions
    assert isinstance(dimension, Range)
    assert isinstance(dimension.at(0.5), int) == whole


def test_a_grid_holds_every_combination_once_and_the_last_key_varies_fastest() -> None:
    trials = choose_trials(parse_space(["lora.r=4,8", "training.seed=1,2,3"]), None, None, seed=0)
    assert trials[:2] == [{"lora.r": 4, "training.seed": 1}, {"lora.r": 4, "training.seed": 2}]
    assert len({tuple(trial.items()) for trial in trials}) == 6


def test_random_trials_of_lists_never_repeat_and_depend_on_the_seed() -> None:
    space = parse_space(["lora.r=4,8,16", "training.learning_rate=1e-4,1e-3,1e-2"])
    drawn = choose_trials(space, "random", 5, seed=1)
    assert len({tuple(trial.items()) for trial in drawn}) == 5
    assert drawn == choose_trials(space, "random", 5, seed=1)
    assert drawn != choose_trials(space, "random", 5, seed=2)


def test_few_trials_of_a_huge_grid_are_drawn_without_making_it() -> None:
    space = parse_space([f"{key}={','.join(map(str, range(1, 101)))}" for key in KEYS])
    trials = space.sample(16, seed=1)
    assert len({tuple(trial.items()) for trial in trials}) == 16
    assert all(list(trial) == KEYS for trial in trials)


def test_random_trials_of_whole_numbers_never_repeat() -> None:
    space = parse_space(["lora.r=4..8"])
    assert sorted(trial["lora.r"] for trial in choose_trials(space, None, 16, seed=0)) == [4, 5, 6, 7, 8]
    space = parse_space(["data.max_length=32..512", "training.seed=1,1,2"])
    for trials in (100, 900):
        drawn = choose_trials(space, None, trials, seed=0)
        assert len({tuple(trial.items()) for trial in drawn}) == trials
    assert {type(trial["data.max_length"]) for trial in drawn} == {int}


def test_a_range_without_enough_numbers_gives_those_that_there_are() -> None:
    space = parse_space(["learning_rate=0.1..0.10000000000000002"])
    assert 1 <= len(choose_trials(space, None, 16, seed=0)) <= 2


def test_few_trials_are_drawn_from_more_than_a_machine_word_counts() -> None:
    space = parse_space(
        [f"{key}={','.join(map(str, range(1, 1001)))}" for key in (*KEYS, "data.max_length", "data.train_samples")]
    )
    assert space.combinations == 1000**7 > sys.maxsize
    assert len({tuple(trial.items()) for trial in choose_trials(space, None, 16, seed=1)}) == 16
    samplers: tuple[Sampler | None, ...] = (None, "grid", "random")
    for sampler in samplers:
        with pytest.raises(ConfigError, match="at most 10000"):
            choose_trials(space, sampler, None, seed=1)


def test_a_wide_range_is_drawn_on_a_logarithmic_scale() -> None:
    rates = [
        t["training.learning_rate"] for t in choose_trials(parse_space(["learning_rate=1e-5..1e-1"]), None, 400, 3)
    ]
    assert all(1e-5 <= rate <= 1e-1 for rate in rates)
    assert 0.4 < sum(rate < 1e-3 for rate in rates) / len(rates) < 0.6


@pytest.mark.parametrize(
    ("assignments", "count"),
    [
        (["lora.rr=4", "lora.r", "learning_rate=1..x", "learning_rate=2..1"], 4),
        (["lora.r="], 1),
        (["lora.r=4,8", "r=16"], 1),
        (["lora.r=1.5..4", "learning_rate=1..inf", "training.seed=1..1" + "0" * 400, "learning_rate=.nan..1"], 4),
    ],
)
def test_every_unclear_assignment_is_named(assignments: list[str], count: int) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(assignments)
    assert len(caught.value.problems) == count


def test_a_range_without_a_number_of_trials_is_refused() -> None:
    with pytest.raises(ConfigError, match="--trials 16"):
        choose_trials(parse_space(["learning_rate=1e-4..1e-2"]), None, None, seed=0)
