"""The frozen base as it is read from safetensors, in whatever shape people keep it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from loramill.base_models import locate_base_model
from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase, load_base
from loramill.engine.batching import build_batch
from loramill.engine.forward import classify
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.errors import ModelError
from small_models import CONFIGS, random_adapter, save_small_model, small_base

CPU = torch.device("cpu")


def logits(base: FrozenBase, folder: Path) -> Tensor:
    rows = tokenize(load_tokenizer(folder), ["a b c", "d e f g h", "x"], None, max_length=20)
    batch = build_batch([(0, rows, np.arange(3))], device=CPU)
    return classify(AdapterBank(base, [random_adapter(base)]), batch)[0]


def copy_of(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_and_activations_have_the_compute_type_and_logits_at_least_float32(
    small_model: Path, dtype: torch.dtype
) -> None:
    base = small_base(small_model, dtype)
    assert base.dtype == dtype
    assert base.embeddings.word.dtype == dtype
    assert all(layer.weight.dtype == torch.promote_types(dtype, torch.float32) for layer in base.head.values())
    found = logits(base, small_model)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found.double(), logits(small_base(small_model), small_model).double(), rtol=0, atol=0.1)


def test_shards_are_one_model(small_model: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(small_model)
    model.base_model.save_pretrained(tmp_path, max_shard_size="20KB")
    files = locate_base_model(str(tmp_path))
    assert len(files.weights) > 1
    shutil.copyfile(small_model / "tokenizer.json", tmp_path / "tokenizer.json")
    assert torch.equal(logits(small_base(tmp_path), small_model), logits(small_base(small_model), small_model))


def test_the_familys_prefix_may_be_there(small_model: Path, tmp_path: Path) -> None:
    prefix = small_base(small_model).architecture.family.prefix
    folder = rewrite(
        copy_of(small_model, tmp_path / "m"),
        lambda tensors: (
            {f"{prefix}.{name}": tensor for name, tensor in tensors.items()} | {"cls.predictions.bias": torch.zeros(3)}
        ),
    )
    assert torch.equal(logits(small_base(folder), small_model), logits(small_base(small_model), small_model))


def test_old_names_of_layer_norm_are_understood(small_bert: Path, tmp_path: Path) -> None:
    def age(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        return {
            next((name.replace(new, old) for new, old in names.items() if name.endswith(new)), name): tensor
            for name, tensor in tensors.items()
        }

    folder = rewrite(copy_of(small_bert, tmp_path / "m"), age)
    assert torch.equal(logits(small_base(folder), small_bert), logits(small_base(small_bert), small_bert))


def test_a_missing_tensor_is_named(small_model: Path, tmp_path: Path) -> None:
    site = small_base(small_model).architecture.family.sites["value"]
    folder = rewrite(
        copy_of(small_model, tmp_path / "m"),
        lambda tensors: {name: tensor for name, tensor in tensors.items() if f"{site}.bias" not in name},
    )
    with pytest.raises(ModelError, match=f"{site}.bias"):
        small_base(folder)


@pytest.mark.parametrize("change", [{"hidden_size": 64}, {"intermediate_size": 32}, {"max_position_embeddings": 512}])
def test_weights_of_other_sizes_than_the_config_says_are_named(
    change: dict[str, int], small_bert: Path, tmp_path: Path
) -> None:
    folder = copy_of(small_bert, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    with pytest.raises(ModelError, match="shape"):
        small_base(folder)


def test_a_damaged_file_is_named(small_bert: Path, tmp_path: Path) -> None:
    folder = copy_of(small_bert, tmp_path / "m")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="damaged"):
        small_base(folder)


def test_another_family_than_the_config_says_is_named(tmp_path: Path) -> None:
    folder = save_small_model("roberta", tmp_path)
    with pytest.raises(ModelError):
        load_base(CONFIGS["distilbert"].to_dict(), [folder / "model.safetensors"], dtype=torch.float32, device=CPU)
