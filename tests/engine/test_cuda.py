"""On a machine with a GPU: the fused ways of CUDA give what the plain ways give in float64 on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from loramill.base_models import locate_base_model
from loramill.engine.bank import AdapterBank
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


def step_of(folder: Path, device: str, dtype: torch.dtype) -> tuple[list[float], torch.Tensor]:
    """Losses of a step of four adapters, and its gradients with logits, end to end in float64."""
    rows = tokenize(load_tokenizer(folder), TEXTS, None, max_length=20)
    data = LabelledTokens(rows, torch.arange(len(TEXTS)) % 3, "single_label_classification")
    base = base_on(folder, device, dtype)
    adapters = [random_adapter(base, rank=rank) for rank in RANKS]
    chosen = [np.arange(len(TEXTS))[place::2] for place in range(len(RANKS))]
    work = [AdapterBatch(place, data, own, 8, None) for place, own in enumerate(chosen)]
    bank = AdapterBank(base, adapters)
    losses = [result.loss for result in accumulate_gradients(bank, work)]
    found = [adapter.grads for adapter in adapters] + [predict_logits(bank, 1, rows).flatten()]
    return losses, torch.cat([tensor.double().cpu() / tensor.double().norm().cpu() for tensor in found])


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_a_step_of_many_adapters_is_that_of_the_cpu(small_model: Path) -> None:
    losses, expected = step_of(small_model, "cpu", torch.float64)
    own_losses, found = step_of(small_model, "cuda", torch.float32)
    assert own_losses == pytest.approx(losses, rel=1e-5)
    assert error(found, expected) <= 1e-5


def test_bfloat16_is_as_near_as_on_the_cpu(small_model: Path) -> None:
    """Random weights this large make 16 bits rough: the CPU, with attention in float32, says how rough."""
    _, expected = step_of(small_model, "cpu", torch.float64)
    _, on_cpu = step_of(small_model, "cpu", torch.bfloat16)
    _, found = step_of(small_model, "cuda", torch.bfloat16)
    assert error(found, expected) <= 2 * error(on_cpu, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_step_twice_is_the_same_bit_for_bit(small_bert: Path, dtype: torch.dtype) -> None:
    rows = tokenize(load_tokenizer(small_bert), TEXTS, None, max_length=20)
    data = LabelledTokens(rows, torch.arange(len(TEXTS)) % 3, "single_label_classification")
    base = base_on(small_bert, "cuda", dtype)
    adapters = [random_adapter(base, rank=rank) for rank in RANKS]
    work = [AdapterBatch(place, data, np.arange(len(TEXTS)), 32, None) for place in range(len(RANKS))]
    seen = []
    for _ in range(2):
        accumulate_gradients(AdapterBank(base, adapters), work)
        seen.append([adapter.grads.clone() for adapter in adapters])
        for adapter in adapters:
            adapter.grads.zero_()
    assert all(torch.equal(first, second) for first, second in zip(*seen, strict=True))
