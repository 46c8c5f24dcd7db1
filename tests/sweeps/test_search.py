"""A search that was interrupted proposes what the uninterrupted one would have."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from loramill.errors import ConfigError
from loramill.sweeps.search import Search
from loramill.sweeps.space import Overrides

TPE = Search(("training.learning_rate=1e-5..1e-2", "lora.r=4,8"), "tpe", trials=14, batch=5, seed=3)


def score(overrides: dict[str, object]) -> float:
    return -abs(float(str(overrides["training.learning_rate"])) - 1e-3)


def propose(search: Search, known: list[float | None]) -> list[dict[str, object]]:
    """Everything that comes after the trials with these scores."""
    asked: list[dict[str, object]] = []
    while batch := search.next_batch(known + [score(trial) for trial in asked]):
        asked += batch
    return asked


def test_tpe_goes_on_where_it_was_interrupted() -> None:
    whole = propose(TPE, [])
    assert len(whole) == 14
    stored = Search.restore(asdict(TPE))
    assert propose(stored, [score(trial) for trial in whole[:10]]) == whole[10:]


def test_tpe_learns_from_scores() -> None:
    liked = propose(TPE, [])[10:]
    misled = TPE.next_batch([-score(trial) for trial in propose(TPE, [])[:10]])
    assert liked[:4] != misled[:4]


@pytest.mark.parametrize(("space", "trials"), [(("lora.r=2..9",), 7), (("lora.r=2,4,8", "training.seed=1,2,3"), 8)])
def test_tpe_proposes_nothing_twice(space: tuple[str, ...], trials: int) -> None:
    """Not even where one value is so good that it would try no other."""
    search = Search(space, "tpe", trials, batch=3, seed=1)
    found: list[Overrides] = []
    while batch := search.next_batch([float(trial["lora.r"] == 4) for trial in found]):
        found += batch
    assert len({repr(trial) for trial in found}) == len(found) == trials


def test_tpe_has_nothing_to_choose_where_it_may_try_all() -> None:
    search = Search(("lora.r=2..4",), "tpe", batch=2)
    assert sorted(str(trial["lora.r"]) for trial in search.next_batch([])) == ["2", "3", "4"]
    assert search.next_batch([0.1, 0.2, 0.3]) == []


def test_a_grid_is_one_batch() -> None:
    grid = Search(("lora.r=4,8",))
    assert grid.next_batch([]) == [{"lora.r": 4}, {"lora.r": 8}]
    assert grid.next_batch([0.5, 0.6]) == []


def test_an_endless_space_needs_a_number_of_trials() -> None:
    with pytest.raises(ConfigError, match="trials"):
        Search(("training.learning_rate=1e-5..1e-2",)).check()
