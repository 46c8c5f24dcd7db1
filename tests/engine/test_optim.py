"""AdamW against ``torch.optim.AdamW``, and the learning rate against Transformers' schedules."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import get_scheduler

from loramill.engine.low_rank_adapter import Adapter
from loramill.engine.optim import AdamW, learning_rate, update
from small_models import random_adapter, small_base

STEPS = 30


def torch_twin(adapter: Adapter, rate: float, weight_decay: float) -> tuple[list[Tensor], torch.optim.AdamW]:
    """Copies of an adapter's ranges as parameters of torch's AdamW, a group for each."""
    copies = [adapter.values[part.first : part.last].clone().requires_grad_() for part in adapter.ranges]
    groups = [
        {"params": [copy], "lr": rate * part.rate_ratio, "weight_decay": weight_decay if part.decays else 0.0}
        for copy, part in zip(copies, adapter.ranges, strict=True)
    ]
    return copies, torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)


@pytest.mark.parametrize("ratio", [1.0, 16.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("max_grad_norm", [0.0, 0.5, 1e6])
def test_values_follow_torch_adamw(small_bert: Path, ratio: float, weight_decay: float, max_grad_norm: float) -> None:
    adapter = random_adapter(small_base(small_bert, torch.float64), b_rate_ratio=ratio)
    optimizer = AdamW(adapter, weight_decay=weight_decay, max_grad_norm=max_grad_norm)
    copies, oracle = torch_twin(adapter, 1e-2, weight_decay)
    generator = torch.Generator().manual_seed(3)

    for _ in range(STEPS):
        gradient = torch.randn(adapter.values.shape, generator=generator, dtype=torch.float64) * 0.03
        adapter.grads.copy_(gradient)
        for copy, part in zip(copies, adapter.ranges, strict=True):
            copy.grad = gradient[part.first : part.last].clone()
        (norm,) = update([optimizer], [1e-2])
        expected_norm = torch.nn.utils.clip_grad_norm_(copies, max_grad_norm or math.inf)
        oracle.step()
        assert norm == pytest.approx(float(expected_norm), rel=1e-12)

    torch.testing.assert_close(adapter.values, torch.cat([copy.detach() for copy in copies]), rtol=1e-10, atol=1e-12)


def test_the_parts_that_decay_and_that_have_their_own_rate_are_the_right_ones(small_bert: Path) -> None:
    adapter = random_adapter(small_base(small_bert), b_rate_ratio=16.0)
    by_start = {part.first: part for part in adapter.ranges}
    assert sum(part.last - part.first for part in adapter.ranges) == adapter.values.numel()

    def part_of(view: Tensor) -> object:
        place = view.storage_offset()
        return by_start[max(first for first in by_start if first <= place)]

    for pair in adapter.pairs.values():
        assert (part_of(pair.lora_a).rate_ratio, part_of(pair.lora_a).decays) == (1.0, True)
        assert (part_of(pair.lora_b).rate_ratio, part_of(pair.lora_b).decays) == (16.0, True)
    for layer in adapter.head.values():
        assert (part_of(layer.weight).rate_ratio, part_of(layer.weight).decays) == (1.0, True)
        assert (part_of(layer.bias).rate_ratio, part_of(layer.bias).decays) == (1.0, False)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_reported(small_bert: Path, value: float) -> None:
    adapter = random_adapter(small_base(small_bert))
    before = adapter.values.clone()
    optimizer = AdamW(adapter, weight_decay=0.1, max_grad_norm=1.0)
    adapter.grads[5] = value
    (norm,) = update([optimizer], [1e-3])
    assert not math.isfinite(norm)
    assert torch.equal(adapter.values, before)
    assert optimizer.steps == 0
    assert not adapter.grads.any()


def test_a_restored_state_goes_on_bit_by_bit(small_bert: Path) -> None:
    base = small_base(small_bert)
    generator = torch.Generator().manual_seed(3)
    gradients = [torch.randn(random_adapter(base).values.shape, generator=generator) for _ in range(8)]

    def run(adapter: Adapter, optimizer: AdamW, steps: list[Tensor]) -> None:
        for gradient in steps:
            adapter.grads.copy_(gradient)
            update([optimizer], [1e-2])

    whole = random_adapter(base)
    run(whole, AdamW(whole, weight_decay=0.1, max_grad_norm=1.0), gradients)

    first, second = random_adapter(base), random_adapter(base)
    before = AdamW(first, weight_decay=0.1, max_grad_norm=1.0)
    run(first, before, gradients[:3])
    after = AdamW(second, weight_decay=0.1, max_grad_norm=1.0)
    after.load_state({name: tensor.clone() for name, tensor in before.state().items()})
    with torch.no_grad():
        second.values.copy_(first.values)
    run(second, after, gradients[3:])
    assert torch.equal(second.values, whole.values)


@pytest.mark.parametrize("warmup_ratio", [0.0, 0.06, 0.5])
@pytest.mark.parametrize(
    ("ours", "theirs"), [("linear", "linear"), ("cosine", "cosine"), ("constant", "constant_with_warmup")]
)
@pytest.mark.parametrize("total", [1, 7, 50])
def test_rates_are_those_of_transformers(ours: str, theirs: str, warmup_ratio: float, total: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-3)
    schedule = get_scheduler(theirs, optimizer, math.ceil(warmup_ratio * total), total)
    for step in range(total):
        rate = learning_rate(step, peak=2e-3, total_steps=total, warmup_ratio=warmup_ratio, schedule=ours)
        assert rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-12, abs=1e-18)
        optimizer.step()
        schedule.step()
