"""What a sweep varies."""

from __future__ import annotations

import pytest

from loramill.errors import ConfigError
from loramill.sweeps.space import Choice, Range, choose_trials, parse_space

KEYS = ["lora.r", "training.seed", "training.logging_steps", "training.save_steps", "training.eval_steps"]


def test_lists_are_choices_and_dots_are_ranges() -> None:
    space = parse_space(["lora.r=4,8", "learning_rate=1e-4..1e-2", "data.max_length=32..64"])
    assert space.dimensions == (
        Choice("lora.r", (4, 8)),
        Range("training.learning_rate", 1e-4, 1e-2, whole=False),
        Range("data.max_length", 32, 64, whole=True),
    )
    assert space.combinations is None


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


def test_a_wide_range_is_drawn_on_a_logarithmic_scale() -> None:
    rates = [
        t["training.learning_rate"] for t in choose_trials(parse_space(["learning_rate=1e-5..1e-1"]), None, 400, 3)
    ]
    assert all(1e-5 <= rate <= 1e-1 for rate in rates)
    assert 0.4 < sum(rate < 1e-3 for rate in rates) / len(rates) < 0.6


@pytest.mark.parametrize(
    ("assignments", "count"),
    [(["lora.rr=4", "lora.r", "learning_rate=1..x", "learning_rate=2..1"], 4), (["lora.r="], 1)],
)
def test_every_unclear_assignment_is_named(assignments: list[str], count: int) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(assignments)
    assert len(caught.value.problems) == count


def test_a_range_without_a_number_of_trials_is_refused() -> None:
    with pytest.raises(ConfigError, match="--trials 16"):
        choose_trials(parse_space(["learning_rate=1e-4..1e-2"]), None, None, seed=0)
