"""On a machine with a GPU: the fused ways of CUDA give what the plain ways give in float64 on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from loramill.base_models import locate_base_model
from loramill.engine.bank import Adapter, AdapterBank
from loramill.engine.base import FrozenBase, load_base
from loramill.engine.step import AdapterBatch, LabelledTokens, accumulate_gradients, predict_logits
from loramill.engine.tokenizer import load_tokenizer, tokenize
from small_models import random_adapter

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
TEXTS = [" ".join("abcdefghijklmnopqrstuvwxyz"[start : start + 1 + start % 9]) for start in range(17)]
RANKS = (4, 8, 3, 4)


def base_on(folder: Path, device: str, dtype: torch.dtype) -> FrozenBase:
    files = locate_base_model(str(folder))
    return load_base(files.config, files.weights, dtype=dtype, device=torch.device(device))


def adapters_on(base: FrozenBase, values: list[torch.Tensor] | None = None) -> list[Adapter]:
    adapters = [random_adapter(base, rank=rank) for rank in RANKS]
    for adapter, own in zip(adapters, values or [], strict=False):
        adapter.values.copy_(own)
    return adapters


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 0.06)])
def test_a_step_of_many_adapters_is_that_of_the_cpu(small_model: Path, dtype: torch.dtype, bound: float) -> None:
    rows = tokenize(load_tokenizer(small_model), TEXTS, None, max_length=20)
    data = LabelledTokens(rows, torch.arange(len(TEXTS)) % 3, "single_label_classification")
    chosen = [np.arange(len(TEXTS))[place::2] for place in range(len(RANKS))]
    work = [AdapterBatch(place, data, own, 8, None) for place, own in enumerate(chosen)]

    plain = base_on(small_model, "cpu", torch.float64)
    expected = adapters_on(plain)
    expected_results = accumulate_gradients(AdapterBank(plain, expected), work)
    base = base_on(small_model, "cuda", dtype)
    adapters = adapters_on(base, [adapter.values for adapter in expected])
    bank = AdapterBank(base, adapters)
    results = accumulate_gradients(bank, work)

    for adapter, other, result, wanted in zip(adapters, expected, results, expected_results, strict=True):
        assert result.loss == pytest.approx(wanted.loss, rel=bound)
        grads = adapter.grads.double().cpu()
        assert float((grads - other.grads).norm() / other.grads.norm()) <= bound
    logits = predict_logits(bank, 1, rows).double()
    wanted_logits = predict_logits(AdapterBank(plain, expected), 1, rows)
    assert float((logits - wanted_logits).norm() / wanted_logits.norm()) <= bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_step_twice_is_the_same_bit_for_bit(small_bert: Path, dtype: torch.dtype) -> None:
    rows = tokenize(load_tokenizer(small_bert), TEXTS, None, max_length=20)
    data = LabelledTokens(rows, torch.arange(len(TEXTS)) % 3, "single_label_classification")
    base = base_on(small_bert, "cuda", dtype)
    adapters = adapters_on(base)
    work = [AdapterBatch(place, data, np.arange(len(TEXTS)), 32, None) for place in range(len(RANKS))]
    seen = []
    for _ in range(2):
        accumulate_gradients(AdapterBank(base, adapters), work)
        seen.append([adapter.grads.clone() for adapter in adapters])
        for adapter in adapters:
            adapter.grads.zero_()
    assert all(torch.equal(first, second) for first, second in zip(*seen, strict=True))
