"""Where an adapter's values lie, and what they are before training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from loramill.engine.families import SITES
from loramill.engine.low_rank_adapter import Adapter, AdapterSpec
from loramill.engine.peft_format import named_tensors
from small_models import random_adapter, save_small_model, small_base


def fresh(folder: Path, **changes: object) -> Adapter:
    spec = AdapterSpec(rank=8, alpha=16, sites=SITES, dropout=0.0, labels=5, seed=3)
    return Adapter(small_base(folder), AdapterSpec(**{**vars(spec), **changes}))


def test_the_first_values_are_drawn_as_peft_and_transformers_draw_them(small_model: Path) -> None:
    """A: Kaiming uniform with a = sqrt(5), so within 1 / sqrt(in); B: zero; head: normal; its bias: zero."""
    adapter = fresh(small_model)
    for pair in adapter.pairs.values():
        bound = 1 / math.sqrt(pair.lora_a.shape[1])
        assert float(pair.lora_a.detach().abs().max()) <= bound
        assert float(pair.lora_a.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.15)
        assert not pair.lora_b.any()
    for layer in adapter.head.values():
        assert float(layer.weight.detach().std()) == pytest.approx(0.3, rel=0.25)
        assert not layer.bias.any()


def test_the_seed_decides_the_first_values(small_bert: Path) -> None:
    assert torch.equal(fresh(small_bert).values, fresh(small_bert).values)
    assert not torch.equal(fresh(small_bert).values, fresh(small_bert, seed=4).values)


def test_every_value_has_one_name_and_its_gradient_the_same_place(small_model: Path) -> None:
    base = small_base(small_model)
    adapter = random_adapter(base, sites=SITES)
    adapter.values.copy_(torch.arange(adapter.values.numel()))
    named = dict(named_tensors(base, adapter))
    places = torch.cat([tensor.reshape(-1) for tensor in named.values()])
    assert sorted(places.tolist()) == list(range(adapter.values.numel()))
    for pair in adapter.pairs.values():
        pair.lora_b.grad[0, 0, 0] = 7.0
        assert float(adapter.grads[int(pair.lora_b[0, 0, 0].detach())]) == 7.0


def test_layers_that_share_weights_share_their_adapter(tmp_path: Path) -> None:
    albert = random_adapter(small_base(save_small_model("albert", tmp_path / "albert")))
    bert = random_adapter(small_base(save_small_model("bert", tmp_path / "bert")))
    assert (len(albert.pairs), len(bert.pairs)) == (1, 3)


def test_scales(small_bert: Path) -> None:
    assert fresh(small_bert).spec.scale == 2.0
    assert fresh(small_bert, rank_stabilised=True).spec.scale == pytest.approx(16 / math.sqrt(8))
