"""Packed and merged adapters against the bank that trains, family by family."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from loramill.base_models import locate_base_model
from loramill.engine import serving_bank
from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase, load_base
from loramill.engine.batching import Batch, build_batch
from loramill.engine.families import SITES, Site
from loramill.engine.forward import classify
from loramill.engine.low_rank_adapter import Adapter, AdapterSpec
from loramill.engine.serving_bank import ServingBank, merge_adapter, pack_adapter
from loramill.engine.tokenizer import load_tokenizer, tokenize

CPU = torch.device("cpu")
TEXTS = ["a b c", "the", "x y z q r s t u v w", "a", "m n o p a b", "q", "b c d e f g h i j k l", "z z z z"]
SITE_CHOICES: list[tuple[Site, ...]] = [
    ("query", "value"),
    ("key",),
    ("key", "value"),
    ("attention_output", "up", "down"),
    SITES,
]


def base_of(folder: Path, dtype: torch.dtype = torch.float32) -> FrozenBase:
    files = locate_base_model(str(folder))
    return load_base(files.config, files.weights, dtype=dtype, device=CPU)


def random_adapter(base: FrozenBase, sites: tuple[Site, ...], seed: int, rank: int = 4) -> Adapter:
    spec = AdapterSpec(rank=rank, alpha=6, sites=sites, dropout=0.5, labels=3, seed=seed, rank_stabilised=seed % 2 == 1)
    adapter = Adapter(base, spec)
    with torch.no_grad():
        adapter.values.normal_(0, 0.2, generator=torch.Generator().manual_seed(seed))
    return adapter


def mixed_batch(folder: Path, adapters: int, multiple: int = 1) -> Batch:
    rows = tokenize(load_tokenizer(folder), TEXTS, None, max_length=20)
    chosen = np.array_split(np.arange(len(TEXTS)), adapters)
    return build_batch([(adapter, rows, part) for adapter, part in enumerate(chosen)], device=CPU, multiple=multiple)


@torch.inference_mode()
@pytest.mark.parametrize("multiple", [1, 16])
def test_packed_adapters_give_the_logits_of_the_bank_that_trained_them(small_model: Path, multiple: int) -> None:
    base = base_of(small_model)
    adapters = [random_adapter(base, sites, seed, rank=seed + 1) for seed, sites in enumerate(SITE_CHOICES)]
    batch = mixed_batch(small_model, len(adapters), multiple)
    expected = classify(AdapterBank(base, adapters), batch)
    packed = classify(ServingBank(base, [pack_adapter(base, adapter) for adapter in adapters]), batch)
    for ours, theirs in zip(packed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("device", "multiple", "shares"), [("cpu", 1, False), ("cpu", 32, True), ("mps", 1, True)])
def test_products_are_shared_where_calls_are_dear(device: str, multiple: int, shares: bool) -> None:
    base = SimpleNamespace(device=torch.device(device), row_multiple=multiple)
    assert serving_bank._shares_products(base) == shares


@torch.inference_mode()
@pytest.mark.parametrize("wide_rank", [1, 5, 9])
@pytest.mark.parametrize("multiple", [1, 16])
def test_neighbours_in_several_products_whose_rows_overlap(
    small_model: Path, monkeypatch: pytest.MonkeyPatch, multiple: int, wide_rank: int
) -> None:
    base = base_of(small_model)
    adapters = [random_adapter(base, sites, seed, rank=seed + 1) for seed, sites in enumerate(SITE_CHOICES)]
    batch = mixed_batch(small_model, len(adapters), multiple)
    expected = classify(AdapterBank(base, adapters), batch)
    monkeypatch.setattr(serving_bank, "WIDE_RANK", wide_rank)
    monkeypatch.setattr(serving_bank, "_shares_products", lambda _base: True)
    monkeypatch.setattr(FrozenBase, "row_multiple", multiple)  # what some CPUs and GPUs like
    packed = classify(ServingBank(base, [pack_adapter(base, adapter) for adapter in adapters]), batch)
    for ours, theirs in zip(packed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("sites", SITE_CHOICES)
def test_a_merged_adapter_gives_the_logits_of_the_bank_within_1e_4(small_model: Path, sites: tuple[Site, ...]) -> None:
    base = base_of(small_model)
    adapter = random_adapter(base, sites, 1)
    batch = mixed_batch(small_model, 1)
    (expected,) = classify(AdapterBank(base, [adapter]), batch)
    (merged,) = classify(merge_adapter(base, pack_adapter(base, adapter)), batch)
    (without,) = classify(ServingBank(base, [merge_adapter(base, pack_adapter(base, adapter)).adapters[0]]), batch)
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-4)
    assert (without - expected).abs().max() > 1e-3, "the update must be visible, or this test shows nothing"


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("huge", ["lora_a", "lora_b"])
@pytest.mark.parametrize("multiple", [1, 16])
def test_an_adapter_that_overflows_spoils_no_other_answers(
    small_model: Path, monkeypatch: pytest.MonkeyPatch, multiple: int, huge: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(FrozenBase, "row_multiple", multiple)
    base = base_of(small_model, dtype)
    adapters = [random_adapter(base, ("query", "value"), seed) for seed in (2, 4, 6)]
    batch = mixed_batch(small_model, 3, multiple)
    before = classify(ServingBank(base, [pack_adapter(base, adapter) for adapter in adapters]), batch)
    for pair in adapters[1].pairs.values():
        getattr(pair, huge).fill_(3e38)
    after = classify(ServingBank(base, [pack_adapter(base, adapter) for adapter in adapters]), batch)
    assert not after[1].isfinite().all(), "it must overflow, or this test shows nothing"
    for untouched in (0, 2):
        torch.testing.assert_close(after[untouched], before[untouched], rtol=1e-6, atol=1e-6)


def test_merging_leaves_the_base_as_it_was(small_model: Path) -> None:
    base = base_of(small_model)
    before = base.layers[0].qkv.weight.clone()
    merged = merge_adapter(base, pack_adapter(base, random_adapter(base, ("query",), 1)))
    assert torch.equal(base.layers[0].qkv.weight, before)
    assert not torch.equal(merged.base.layers[0].qkv.weight, before)
    assert merged.base.layers[0].up is base.layers[0].up


@torch.inference_mode()
def test_in_bfloat16_the_head_stays_in_float32_and_the_logits_near(small_model: Path) -> None:
    base, exact = base_of(small_model, torch.bfloat16), base_of(small_model)
    adapter = random_adapter(exact, ("query", "value"), 1)
    batch = mixed_batch(small_model, 1)
    packed = pack_adapter(base, adapter)
    (logits,) = classify(ServingBank(base, [packed]), batch)
    (expected,) = classify(AdapterBank(exact, [adapter]), batch)
    assert logits.dtype == torch.float32
    assert {update.down.dtype for update in packed.updates.values()} == {torch.bfloat16}
    assert (logits - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_packed_adapter_does_not_change_with_the_one_it_was_packed_from(small_model: Path) -> None:
    base = base_of(small_model)
    adapter = random_adapter(base, ("query", "value"), 1)
    packed = pack_adapter(base, adapter)
    tensors = [tensor for update in packed.updates.values() for tensor in (update.down, update.up)]
    trained = {layer.path for layer in base.trained_head()}
    head = zip(base.architecture.family.head, packed.head, strict=True)
    own = [weights.linear for layer, weights in head if layer.path in trained]
    tensors += [tensor for linear in own for tensor in (linear.weight, linear.bias)]
    before = [tensor.clone() for tensor in tensors]
    adapter.values.data.zero_()
    assert all(torch.equal(tensor, old) for tensor, old in zip(tensors, before, strict=True))
    assert packed.nbytes == sum(tensor.nbytes for tensor in tensors)
