"""A step in copies of the process gives the very gradients that it gives in threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from loramill.engine.bank import AdapterBank
from loramill.engine.dropout import DropoutSeed
from loramill.engine.forked_lanes import can_fork
from loramill.engine.lanes import LANE_TOKENS
from loramill.engine.step import AdapterBatch, LabelledTokens, accumulate_gradients
from loramill.engine.step_copies import step_copies
from loramill.engine.token_rows import IntArray, TokenRows
from small_models import random_adapter, small_base

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are not forked here")
LENGTHS: IntArray = np.random.default_rng(1).integers(4, 30, 90)


@pytest.fixture(params=[2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def rows_of(seed: int) -> LabelledTokens:
    generator = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    rows = TokenRows(generator.integers(5, 20, starts[-1]), np.zeros(starts[-1], dtype=np.int64), starts)
    return LabelledTokens(rows, torch.arange(len(LENGTHS)) % 3, "single_label_classification")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_those_of_threads_bit_by_bit(
    small_model: Path, threads: int, dropout: float, dtype: torch.dtype
) -> None:
    """Five adapters of different ranks, rows and batch sizes, over steps in which their values change."""
    base = small_base(small_model, dtype)
    adapters = [random_adapter(base, rank=rank, dropout=dropout, seed=rank) for rank in (1, 2, 3, 4, 5)]
    bank = AdapterBank(base, adapters)
    sources = {place: rows_of(place) for place in range(len(adapters))}
    chosen = [np.arange(place, len(LENGTHS), 1 + place % 2) for place in sources]
    assert sources[0].rows.starts[-1] > 3 * LANE_TOKENS

    def steps(copies: object) -> list[torch.Tensor]:
        found = []
        before = [adapter.values.clone() for adapter in adapters]
        for step in range(3):
            seed = DropoutSeed(1, step) if dropout else None
            work = [AdapterBatch(place, sources[place], rows, 40, seed) for place, rows in enumerate(chosen)]
            results = accumulate_gradients(bank, work, run_passes=copies)  # type: ignore[arg-type]
            assert [result.rows for result in results] == [len(rows) for rows in chosen]
            for adapter in adapters:
                found.append(adapter.grads.clone())
                adapter.values.sub_(adapter.grads, alpha=0.1)
                adapter.grads.zero_()
        for adapter, values in zip(adapters, before, strict=True):
            adapter.values.copy_(values)
        return found

    expected = steps(None)
    with step_copies(bank, sources) as copies:
        found = steps(copies)
    assert all(float(gradient.abs().max()) > 0 for gradient in found)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
