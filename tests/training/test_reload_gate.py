"""The gate lets a model pass that a fresh process reads to the same logits, and no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from loramill.base_models import locate_base_model
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.errors import ReloadMismatchError
from loramill.training.final_model import save_final_model
from loramill.training.reload_gate import check_reloads
from small_models import random_adapter, save_small_model, small_base
from small_runs import small_config

TEXTS = ["a b c", "d", "e f g h i j"]


class Saved:
    """A final model on disk, and what it was written from."""

    def __init__(self, home: Path) -> None:
        self.model = save_small_model("distilbert", home / "model")
        self.base = small_base(self.model)
        self.adapter = random_adapter(self.base)
        self.folder = home / "final_model"
        save_final_model(
            self.folder,
            self.base,
            self.adapter,
            files=locate_base_model(str(self.model)),
            config=small_config(self.model, "rows"),
            label_names=("red", "green", "blue"),
            problem_type="single_label_classification",
            metrics={"accuracy": 0.5},
        )


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    return Saved(tmp_path)


def change_tensor(part: str, change: Callable[[Tensor], object]) -> Callable[[Saved], object]:
    def damage(saved: Saved) -> None:
        file = saved.folder / "adapter_model.safetensors"
        tensors = load_file(file)
        change(next(tensor for name, tensor in tensors.items() if part in name))
        save_file(tensors, file, {"format": "pt"})

    return damage


def double_the_scale(saved: Saved) -> None:
    file = saved.folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "lora_alpha": 2 * config["lora_alpha"]}), encoding="utf-8")


def cut_texts_short(saved: Saved) -> None:
    file = saved.folder / "labels.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"max_length": 64', '"max_length": 4'), encoding="utf-8")


def another_tokenizer(saved: Saved) -> None:
    file = saved.folder / "tokenizer.json"
    vocabulary = json.loads(file.read_text(encoding="utf-8"))
    words = vocabulary["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    file.write_text(json.dumps(vocabulary), encoding="utf-8")


def check(saved: Saved, pairs: list[str] | None = None) -> float:
    tokens = tokenize(load_tokenizer(saved.model), TEXTS, pairs, max_length=64)
    return check_reloads({saved.folder: saved.adapter}, saved.base, tokens, TEXTS, pairs)[0]


def test_a_whole_model_passes_and_leaves_nothing_behind(saved: Saved) -> None:
    before = {path.name for path in saved.folder.parent.iterdir()}
    assert check(saved) <= 1e-5
    assert check(saved, ["x y", "", "z"]) <= 1e-5
    assert {path.name for path in saved.folder.parent.iterdir()} == before


DAMAGES: dict[str, Callable[[Saved], object]] = {
    "head": change_tensor("pre_classifier.weight", lambda tensor: tensor[0].add_(1e-2)),
    "scale": double_the_scale,
    "not a number": change_tensor("classifier.bias", lambda tensor: tensor.fill_(float("nan"))),
    "another tokenizer": another_tokenizer,
    "texts cut short": cut_texts_short,
    "no base": lambda saved: shutil.rmtree(saved.model),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_model_that_was_tampered_with_does_not_pass(damage: Callable[[Saved], object], saved: Saved) -> None:
    tokens = tokenize(load_tokenizer(saved.model), TEXTS, None, max_length=64)
    damage(saved)
    with pytest.raises(ReloadMismatchError, match="reload"):
        check_reloads({saved.folder: saved.adapter}, saved.base, tokens, TEXTS, None)


def test_one_bad_model_among_several_is_named(saved: Saved, tmp_path: Path) -> None:
    tokens = tokenize(load_tokenizer(saved.model), TEXTS, None, max_length=64)
    good = shutil.copytree(saved.folder, tmp_path / "good_model")
    change_tensor("lora_A", lambda tensor: tensor.add_(0.01))(saved)
    with pytest.raises(ReloadMismatchError, match="final_model"):
        check_reloads({good: saved.adapter, saved.folder: saved.adapter}, saved.base, tokens, TEXTS, None)
