"""The engine's forward and gradients against PEFT and Transformers, family by family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.engine.batching import build_batch
from loramill.engine.families import SITES
from loramill.engine.forward import classify
from loramill.engine.low_rank_adapter import Adapter
from loramill.engine.peft_format import load_adapter, named_tensors, save_adapter
from loramill.engine.token_rows import TokenRows
from loramill.engine.tokenizer import load_tokenizer, tokenize
from small_models import padded_inputs, random_adapter, small_base

CPU = torch.device("cpu")
TEXTS = ["a b c", "the", "x y z q r s t u v w", "a", "m n o p a b", "q", "b c d e f g h i j k l", "z z z z"]
PAIRS = ["d e", "f g h", "i", "j k l m", "n", "o p q r s", "t", "u v w"]


def rows_of(folder: Path, pairs: bool) -> TokenRows:
    return tokenize(load_tokenizer(folder), TEXTS, PAIRS if pairs else None, max_length=20)


def peft_model(folder: Path, base: FrozenBase, adapter: Adapter, saved: Path) -> torch.nn.Module:
    """The same adapter, loaded by PEFT from what the engine saved."""
    save_adapter(saved, base, adapter, base_name=str(folder))
    plain = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=adapter.spec.labels)
    return peft.PeftModel.from_pretrained(plain, saved, is_trainable=True).eval()


@pytest.mark.parametrize("attention", ["rows", "padded"])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("sites", [("query", "value"), SITES, ("key", "down")])
def test_logits_and_gradients_equal_peft(
    small_model: Path, tmp_path: Path, sites: tuple, pairs: bool, attention: str
) -> None:
    base = small_base(small_model)
    adapter = random_adapter(base, sites=sites)
    rows = rows_of(small_model, pairs)
    labels = torch.arange(len(rows)) % 3

    (logits,) = classify(
        AdapterBank(base, [adapter]), build_batch([(0, rows, np.arange(len(rows)))], device=CPU, attention=attention)
    )
    torch.nn.functional.cross_entropy(logits, labels).backward()

    oracle = peft_model(small_model, base, adapter, tmp_path)
    expected = oracle(**padded_inputs(rows, base.architecture.model_type))["logits"]
    torch.nn.functional.cross_entropy(expected, labels).backward()

    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    oracle_grads = {
        name.replace(".default", "").replace("modules_to_save.", ""): parameter.grad
        for name, parameter in oracle.named_parameters()
        if parameter.requires_grad
    }
    flat_grads = iter_grads(base, adapter)
    assert flat_grads.keys() == oracle_grads.keys()
    for name, grad in flat_grads.items():
        assert float((grad - oracle_grads[name]).abs().max()) <= 1e-5 * max(1.0, float(grad.abs().max())), name


def iter_grads(base: FrozenBase, adapter: Adapter) -> dict[str, Tensor]:
    """The flat gradient by PEFT's names: the same views, taken of the gradient."""
    values, adapter_grads = adapter.values.clone(), adapter.grads
    with torch.no_grad():
        adapter.values.copy_(adapter_grads)
        grads = {name: view.detach().clone() for name, view in named_tensors(base, adapter)}
        adapter.values.copy_(values)
    return grads


def test_saved_adapter_reloads_to_the_same_values(small_model: Path, tmp_path: Path) -> None:
    base = small_base(small_model)
    adapter = random_adapter(base, sites=SITES, rank_stabilised=True)
    save_adapter(tmp_path, base, adapter, base_name=str(small_model))
    again = load_adapter(tmp_path, base)
    assert torch.equal(again.values, adapter.values)
    assert again.spec.scale == adapter.spec.scale


def test_a_row_has_the_same_logits_alone_and_in_any_company(small_model: Path) -> None:
    base = small_base(small_model, torch.float64)
    first, second = random_adapter(base), random_adapter(base, rank=2, seed=5, labels=2)
    bank = AdapterBank(base, [first, second])
    rows = rows_of(small_model, pairs=True)
    together = classify(bank, build_batch([(1, rows, np.array([6, 0, 3])), (0, rows, np.array([2, 5]))], device=CPU))
    for adapter, logits, chosen in ((1, together[0], [6, 0, 3]), (0, together[1], [2, 5])):
        for row, expected in zip(chosen, logits, strict=True):
            (alone,) = classify(bank, build_batch([(adapter, rows, np.array([row]))], device=CPU))
            torch.testing.assert_close(alone[0], expected, rtol=0, atol=1e-12)
