"""Families without a fast path: their own module, with PEFT's layers, gives what plain PEFT gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
)

from loramill.base_models import locate_base_model
from loramill.engine.adapters import BaseNeeds, load_any_base, new_adapter
from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.engine.batching import build_batch
from loramill.engine.dropout import DropoutSeed, DropoutStream
from loramill.engine.forward import classify
from loramill.engine.low_rank_adapter import Adapter, AdapterSpec
from loramill.engine.module_base import ModuleBase
from loramill.engine.peft_format import load_adapter, save_adapter
from loramill.engine.token_rows import TokenRows
from loramill.errors import ConfigError, ModelError
from small_models import SMALL, VOCABULARY
from small_modules import MODULES, save_small_module


def load(folder: Path, **needs: object) -> FrozenBase:
    files = locate_base_model(str(folder))
    cpu = torch.device("cpu")
    return load_any_base(
        files.config, files.folder, files.weights, dtype=torch.float32, device=cpu, needs=BaseNeeds(**needs)
    )


def spec(**changes: object) -> AdapterSpec:
    return AdapterSpec(**{"rank": 4, "alpha": 8, "sites": (), "dropout": 0.0, "labels": 3, "seed": 5, **changes})


def drawn(base: FrozenBase, **changes: object) -> Adapter:
    """An adapter with every value drawn: with B = 0 an update would be invisible."""
    adapter = new_adapter(base, spec(**changes))
    adapter.values += torch.empty(adapter.values.shape).normal_(0, 0.1, generator=torch.Generator().manual_seed(7))
    return adapter


def rows() -> TokenRows:
    generator = np.random.default_rng(3)
    lengths = np.array([5, 9, 3, 9, 12])
    ids = generator.integers(4, len(VOCABULARY), lengths.sum())
    return TokenRows(ids, np.zeros_like(ids), np.concatenate([[0], np.cumsum(lengths)]))


def peft_logits(model: PeftModel, data: TokenRows) -> torch.Tensor:
    """One row at a time: no padding, so no doubt about it."""
    found = []
    for first, last in zip(data.starts[:-1], data.starts[1:], strict=True):
        found.append(model(input_ids=torch.from_numpy(data.token_ids[first:last])[None]).logits)
    return torch.cat(found)


def saved_in_peft(folder: Path, base: FrozenBase, adapter: Adapter, model: Path) -> PeftModel:
    folder.mkdir()
    save_adapter(folder, base, adapter, base_name=str(model))
    module = AutoModelForSequenceClassification.from_pretrained(model, num_labels=3)
    return PeftModel.from_pretrained(module, folder, is_trainable=True).eval()


@pytest.mark.parametrize("family", sorted(MODULES))
def test_logits_and_gradients_are_those_of_peft(family: str, tmp_path: Path) -> None:
    model = save_small_module(family, tmp_path / "model")
    base = load(model)
    assert isinstance(base, ModuleBase)
    adapter = drawn(base)
    peft = saved_in_peft(tmp_path / "adapter", base, adapter, model)
    labels = torch.tensor([0, 1, 2, 1, 0])
    batch = build_batch([(0, rows(), np.arange(5))], device=base.device)
    (logits,) = classify(AdapterBank(base, [adapter]), batch)
    expected = peft_logits(peft, rows())
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)

    torch.nn.functional.cross_entropy(logits, labels).backward()
    torch.nn.functional.cross_entropy(expected, labels).backward()
    theirs = {
        name.replace(".default", ""): value.grad for name, value in peft.named_parameters() if value.requires_grad
    }
    ours = {name.replace(".loramill0", ""): value.grad for name, value in adapter.tensors.items()}
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        torch.testing.assert_close(
            ours[name], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert float(adapter.grads.abs().sum()) > 0


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    base = load(save_small_module("modernbert", tmp_path / "model"))
    adapter = drawn(base, rank_stabilised=True)
    (tmp_path / "adapter").mkdir()
    save_adapter(tmp_path / "adapter", base, adapter, base_name="base")
    again = load_adapter(tmp_path / "adapter", base, labels=3)
    assert again.spec.modules == ("Wqkv",)
    assert torch.equal(again.values, adapter.values)


def test_adapters_share_the_module_and_keep_their_values(tmp_path: Path) -> None:
    base = load(save_small_module("deberta-v2", tmp_path / "model"))
    adapters = [drawn(base), drawn(base, rank=2, seed=6, modules=("key_proj",))]
    bank = AdapterBank(base, adapters)
    alone = [classify(bank, build_batch([(i, rows(), np.arange(5))], device=base.device))[0] for i in range(2)]
    parts = [(0, rows(), np.arange(5)), (1, rows(), np.arange(5))]
    together = classify(bank, build_batch(parts, device=base.device))
    assert torch.equal(alone[0], together[0])
    assert torch.equal(alone[1], together[1])
    assert not torch.allclose(alone[0], alone[1])


def test_dropout_depends_on_seed_and_step_only(tmp_path: Path) -> None:
    base = load(save_small_module("modernbert", tmp_path / "model"))
    bank = AdapterBank(base, [drawn(base, dropout=0.5)])
    batch = build_batch([(0, rows(), np.arange(5))], device=base.device)

    def logits(step: int) -> torch.Tensor:
        return classify(bank, batch, {0: DropoutStream(DropoutSeed(1, step), 0, base.device)})[0].detach()

    torch.manual_seed(11)
    first = logits(3)
    assert torch.equal(first, logits(3))
    assert not torch.equal(first, logits(4))
    assert not torch.equal(first, classify(bank, batch)[0].detach())
    state = torch.random.get_rng_state()
    logits(3)
    assert torch.equal(state, torch.random.get_rng_state())  # nobody else's random numbers are touched


def test_the_seed_decides_the_initial_values(tmp_path: Path) -> None:
    base = load(save_small_module("deberta-v2", tmp_path / "model"))
    again = load(tmp_path / "model")
    assert torch.equal(new_adapter(base, spec()).values, new_adapter(again, spec()).values)
    other = new_adapter(base, spec(seed=9))
    head = [name for name in other.tensors if "classifier" in name and name.endswith("weight")]
    assert head
    mine = new_adapter(base, spec()).tensors
    assert not torch.equal(mine[head[0].replace("loramill1", "loramill0")], other.tensors[head[0]])


@pytest.mark.parametrize("needs", [{"dora": True}, {"base_dropout": True}])
def test_a_family_with_a_fast_path_takes_its_module_when_asked(needs: dict[str, bool], tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModel.from_config(BertConfig(**SMALL)).save_pretrained(tmp_path / "model")
    base = load(tmp_path / "model", **needs)
    assert isinstance(base, ModuleBase)
    adapter = drawn(base, dora=needs.get("dora", False))
    peft = saved_in_peft(tmp_path / "adapter", base, adapter, tmp_path / "model")
    batch = build_batch([(0, rows(), np.arange(5))], device=base.device)
    bank = AdapterBank(base, [adapter])
    torch.testing.assert_close(classify(bank, batch)[0], peft_logits(peft, rows()), rtol=1e-5, atol=1e-5)
    dropped = classify(bank, batch, {0: DropoutStream(DropoutSeed(1, 1), 0, base.device)})[0]
    assert torch.equal(dropped, classify(bank, batch)[0]) is not needs.get("base_dropout", False)


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    base = load(save_small_module("modernbert", tmp_path / "model"))
    with pytest.raises(ConfigError, match="nothing_like_it"):
        new_adapter(base, spec(modules=("nothing_like_it",)))


@pytest.mark.parametrize("labels", [None, 5])
def test_an_encoder_of_another_size_than_the_config_says_is_named(labels: int | None, tmp_path: Path) -> None:
    folder = save_small_module("deberta-v2", tmp_path / "model", labels=labels)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 99}))
    with pytest.raises(ModelError, match=r"word_embeddings.weight.*\[30, 32\].*\[99, 32\]"):
        new_adapter(load(folder), spec())


def test_what_a_checkpoint_lacks_and_what_was_for_other_labels_is_the_head(tmp_path: Path) -> None:
    folder = save_small_module("deberta-v2", tmp_path / "model", labels=5)
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    trained = {
        name.rpartition(".")[0].split(".")[-1] for name in new_adapter(load(folder), spec()).saved_names.values()
    }
    assert {"classifier", "dense"} <= trained
