"""Successive halving."""

from __future__ import annotations

from loramill.sweeps.halving import Halving


def test_rungs_grow_by_the_factor_that_trials_shrink_by() -> None:
    assert Halving(keep=4, rungs=2).shares() == [1 / 16, 1 / 4]


def test_the_best_survive_and_ties_go_to_the_earlier() -> None:
    halving = Halving(keep=2, rungs=1)
    assert halving.survivors([0.1, 0.9, 0.5, 0.9]) == [1, 3]
    assert halving.survivors([0.5, 0.5, 0.5]) == [0, 1]
    assert halving.survivors([0.3]) == [0]


def test_later_comparisons_take_more_rows() -> None:
    halving = Halving(keep=4, rungs=3, rows=512)
    assert [halving.rows_at(rung) for rung in range(3)] == [128, 256, 512]
    assert Halving(rungs=12, rows=512).rows_at(0) == 1
