"""Work side by side: same results, same order, every thread used, failures after all have ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from loramill.engine.bank import AdapterBank
from loramill.engine.dropout import DropoutSeed
from loramill.engine.lanes import LANE_TOKENS, run_in_lanes
from loramill.engine.step import AdapterBatch, LabelledTokens, accumulate_gradients, predict_logits
from loramill.engine.token_rows import IntArray, TokenRows
from small_models import random_adapter, small_base

LENGTHS: IntArray = np.random.default_rng(1).integers(4, 30, 60)


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def long_rows() -> LabelledTokens:
    generator = np.random.default_rng(2)
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    rows = TokenRows(generator.integers(5, 20, starts[-1]), np.zeros(starts[-1], dtype=np.int64), starts)
    return LabelledTokens(rows, torch.arange(len(LENGTHS)) % 3, "single_label_classification")


def test_results_come_in_the_order_of_the_tasks(threads: int) -> None:
    def task(number: int) -> tuple[int, int]:
        time.sleep(0.01 * (5 - number))
        return number, torch.get_num_threads()

    found = run_in_lanes([partial(task, number) for number in range(5)])
    assert [number for number, _ in found] == list(range(5))
    assert {share for _, share in found} == {1}
    assert torch.get_num_threads() == threads


def test_a_single_task_has_all_threads(threads: int) -> None:
    assert run_in_lanes([torch.get_num_threads]) == [threads]


def test_a_failure_is_raised_when_the_others_have_ended(threads: int) -> None:
    ended = threading.Event()

    def slow() -> None:
        time.sleep(0.05)
        ended.set()

    def fail() -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        run_in_lanes([fail, slow])
    assert threads == 1 or ended.is_set()
    assert run_in_lanes([lambda: 1, lambda: 2]) == [1, 2]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradient_of_a_batch_does_not_depend_on_the_lanes(small_model: Path, threads: int, dropout: float) -> None:
    base, data = small_base(small_model, torch.float64), long_rows()
    assert data.rows.starts[-1] > 3 * LANE_TOKENS
    adapter = random_adapter(base, dropout=dropout)
    batch = AdapterBatch(0, data, np.arange(len(data)), len(data), DropoutSeed(1, 0) if dropout else None)

    def gradient() -> torch.Tensor:
        adapter.grads.zero_()
        accumulate_gradients(AdapterBank(base, [adapter]), [batch])
        return adapter.grads.clone()

    found = gradient()
    assert torch.equal(found, gradient())  # the order of sums is fixed, whoever is first
    torch.set_num_threads(1)
    if not dropout:  # lanes draw masks of their own
        assert torch.allclose(found, gradient(), rtol=1e-10, atol=1e-13)


def test_predictions_do_not_depend_on_the_lanes(small_model: Path, threads: int) -> None:
    base, rows = small_base(small_model, torch.float64), long_rows().rows
    bank = AdapterBank(base, [random_adapter(base)])
    found = predict_logits(bank, 0, rows, token_budget=300)
    torch.set_num_threads(1)
    assert torch.allclose(found, predict_logits(bank, 0, rows), rtol=1e-10, atol=1e-13)
