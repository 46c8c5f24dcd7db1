"""The way of a GPU for many adapters, on any device: the same numbers as one adapter after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from loramill.engine.bank import AdapterBank
from loramill.engine.dropout import DropoutSeed
from loramill.engine.families import SITES
from loramill.engine.low_rank_adapter import Adapter
from loramill.engine.packed_updates import packed_linear
from loramill.engine.step import AdapterBatch, LabelledTokens, accumulate_gradients
from loramill.engine.tokenizer import load_tokenizer, tokenize
from small_models import random_adapter, small_base

TEXTS = [" ".join("abcdefghijklmnopqrstuvwxyz"[start : start + 1 + start % 9]) for start in range(17)]


class PackedBank(AdapterBank):
    """A bank that goes the GPU's way wherever it is."""

    calls = 0

    def linear(self, layer: Any, group: Any, sites: Any, weights: Any, x: Tensor, rows: Any, dropout: Any) -> Tensor:
        self.calls += 1
        return packed_linear(x, weights, self.updates(layer, group, sites, rows, x, dropout), rows)


def alike(base: Any, dropout: float) -> list[Adapter]:
    return [random_adapter(base, dropout=dropout) for _ in range(4)]


def mixed(base: Any, dropout: float) -> list[Adapter]:
    """Other ranks, sites, layers, scales and starts."""
    return [
        random_adapter(base, dropout=dropout),
        random_adapter(base, rank=2, alpha=3, sites=SITES, dropout=dropout),
        random_adapter(base, rank=3, sites=("query", "up", "down")),
        random_adapter(base, sites=("key", "value", "attention_output"), dropout=dropout),
        random_adapter(base, rank=5, layers=(0,)),
        random_adapter(base, rank=2, init="pissa"),
    ]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("adapters_of", [alike, mixed])
def test_packed_steps_are_those_of_each_adapter_alone(small_model: Path, adapters_of: Any, dropout: float) -> None:
    base = small_base(small_model, torch.float64)
    rows = tokenize(load_tokenizer(small_model), TEXTS, None, max_length=20)
    data = LabelledTokens(rows, torch.arange(len(TEXTS)) % 3, "single_label_classification")
    adapters = adapters_of(base, dropout)
    chosen = [np.arange(len(TEXTS))[place::3] for place in range(len(adapters))]
    work = [AdapterBatch(i, data, rows, 4, DropoutSeed(i, 7) if dropout else None) for i, rows in enumerate(chosen)]

    bank = PackedBank(base, adapters)
    together = accumulate_gradients(bank, work, packed_tokens=10_000)
    found = [adapter.grads.clone() for adapter in adapters]

    assert bank.calls
    for place, (adapter, result, grads) in enumerate(zip(adapters, together, found, strict=True)):
        adapter.grads.zero_()
        (alone,) = accumulate_gradients(AdapterBank(base, adapters), [work[place]], packed_tokens=10_000)
        assert result.loss == pytest.approx(alone.loss, rel=1e-12)
        assert grads.any()
        torch.testing.assert_close(grads, adapter.grads, rtol=1e-10, atol=1e-13)
