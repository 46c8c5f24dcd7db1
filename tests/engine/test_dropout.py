"""Dropout: the right share is dropped, the expectation stays, and masks depend on the seed and the step only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.engine.batching import build_batch
from loramill.engine.dropout import DropoutSeed, DropoutStream
from loramill.engine.forward import classify
from loramill.engine.low_rank_adapter import Adapter
from loramill.engine.packed_updates import AdapterRows
from loramill.engine.step import AdapterBatch, LabelledTokens, accumulate_gradients
from loramill.engine.tokenizer import load_tokenizer, tokenize
from small_models import random_adapter, small_base

CPU = torch.device("cpu")
TEXTS = ["a b c", "d e f g h", "i", "j k l m n o p", "q r", "s t u"]


def labelled(folder: Path) -> LabelledTokens:
    rows = tokenize(load_tokenizer(folder), TEXTS, None, max_length=20)
    return LabelledTokens(rows, torch.arange(len(TEXTS)) % 3, "single_label_classification")


def gradient(base: FrozenBase, adapter: Adapter, data: LabelledTokens, seed: int, step: int, micro: int = 6) -> Tensor:
    adapter.grads.zero_()
    work = AdapterBatch(0, data, np.arange(len(data)), micro, DropoutSeed(seed, step))
    accumulate_gradients(AdapterBank(base, [adapter]), [work])
    return adapter.grads.clone()


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_drop_the_share_and_keep_the_expectation(probability: float, dtype: torch.dtype) -> None:
    mask = DropoutStream(DropoutSeed(1, 0), 0, CPU).mask(torch.empty(500, 400, dtype=dtype), probability)
    dropped = float((mask == 0).float().mean())
    assert dropped == pytest.approx(probability, abs=5 * (probability * (1 - probability) / mask.numel()) ** 0.5)
    kept = mask[mask != 0]
    assert kept.unique().numel() == 1
    assert float(kept[0]) == pytest.approx(1 / (1 - probability), rel=torch.finfo(dtype).eps)
    assert mask.dtype == dtype


def test_masks_of_one_stream_differ_and_streams_repeat() -> None:
    like = torch.empty(50, 40)
    first, again = DropoutStream(DropoutSeed(3, 7), 0, CPU), DropoutStream(DropoutSeed(3, 7), 0, CPU)
    masks = [first.mask(like, 0.5) for _ in range(3)]
    assert not torch.equal(masks[0], masks[1])
    assert all(torch.equal(mask, again.mask(like, 0.5)) for mask in masks)
    for seed, step in ((3, 8), (4, 7), (3 + 2**31, 7)):
        assert not torch.equal(masks[0], DropoutStream(DropoutSeed(seed, step), 0, CPU).mask(like, 0.5))


def test_a_step_repeats_bit_by_bit_and_another_step_does_not(small_model: Path) -> None:
    base = small_base(small_model)
    data, adapter = labelled(small_model), random_adapter(base, dropout=0.3)
    once = gradient(base, adapter, data, seed=5, step=9)
    assert torch.equal(once, gradient(base, adapter, data, seed=5, step=9))
    assert not torch.equal(once, gradient(base, adapter, data, seed=5, step=10))
    assert not torch.equal(once, gradient(base, adapter, data, seed=6, step=9))


def test_the_mean_over_many_masks_of_one_layer_is_the_output_without_dropout(small_bert: Path) -> None:
    """Dropout acts on the input of a linear update, so the update's expectation is the update without it."""
    base = small_base(small_bert, torch.float64)
    adapter = random_adapter(base, dropout=0.2, sites=("query", "key", "value"))
    bank, x = AdapterBank(base, [adapter]), torch.randn(4, 32, dtype=torch.float64)

    def update(dropout: dict[int, DropoutStream]) -> Tensor:
        (found,) = bank.updates(0, "qkv", ("query", "key", "value"), AdapterRows(((0, 0, 4),)), x, dropout)
        kept = x if found.dropout_mask is None else x * found.dropout_mask
        return kept @ found.lora_a.detach().t()

    expected = update({})
    samples = torch.stack([update({0: DropoutStream(DropoutSeed(1, step), 0, CPU)}) for step in range(4000)])
    error = samples.std(0) / len(samples) ** 0.5
    assert bool(((samples.mean(0) - expected).abs() < 5 * error).all())


def test_nothing_is_dropped_without_a_stream(small_model: Path) -> None:
    base = small_base(small_model)
    rows = labelled(small_model).rows
    batch = build_batch([(0, rows, np.arange(len(rows)))], device=CPU)
    (with_dropout,) = classify(AdapterBank(base, [random_adapter(base, dropout=0.5)]), batch)
    (without,) = classify(AdapterBank(base, [random_adapter(base, dropout=0.0)]), batch)
    assert torch.equal(with_dropout, without)


def test_gradients_with_masks_are_those_of_numeric_differences(small_bert: Path) -> None:
    base = small_base(small_bert, torch.float64)
    data, adapter = labelled(small_bert), random_adapter(base, dropout=0.4, rank=2)
    found = gradient(base, adapter, data, seed=1, step=2)

    def loss() -> float:
        work = AdapterBatch(0, data, np.arange(len(data)), 6, DropoutSeed(1, 2))
        return accumulate_gradients(AdapterBank(base, [adapter]), [work])[0].loss

    generator = np.random.default_rng(0)
    for place in generator.choice(adapter.values.numel(), 40, replace=False):
        original = float(adapter.values[place])
        differences = []
        for change in (1e-6, -1e-6):
            adapter.values[place] = original + change
            differences.append(loss())
        adapter.values[place] = original
        assert float(found[place]) == pytest.approx((differences[0] - differences[1]) / 2e-6, rel=1e-4, abs=1e-8)
