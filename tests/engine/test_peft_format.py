"""Adapters of PEFT run on the engine, adapters of the engine run in PEFT, and damaged ones run nowhere."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.engine.families import SITES
from loramill.engine.peft_format import CONFIG_FILE, WEIGHTS_FILE, load_adapter, save_adapter
from loramill.engine.step import predict_logits
from loramill.engine.token_rows import TokenRows
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.errors import AdapterFormatError
from small_models import CONFIGS, padded_inputs, random_adapter, save_small_model, small_base

TEXTS = ["a b c", "the", "x y z q r s t u v w", "a", "m n o p a b", "q", "b c d e f g h i j k l", "z z z z"]


def rows_of(folder: Path) -> TokenRows:
    return tokenize(load_tokenizer(folder), TEXTS, None, max_length=20)


def engine_logits(base: FrozenBase, adapter_folder: Path, rows: TokenRows) -> Tensor:
    return predict_logits(AdapterBank(base, [load_adapter(adapter_folder, base)]), 0, rows)


def plain_model(folder: Path, labels: int = 3) -> torch.nn.Module:
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels)


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(11)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.normal_(0, 0.2, generator=generator)


@pytest.fixture
def peft_adapter(small_model: Path, tmp_path: Path) -> tuple[Path, Tensor]:
    """An adapter that PEFT made and saved, and its logits."""
    base = small_base(small_model)
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=3,
        lora_alpha=7,
        use_rslora=True,
        target_modules=[base.architecture.family.module_name(site) for site in ("query", "value", "up")],
    )
    if base.architecture.model_type in ("bert", "roberta"):
        config.target_modules = {"query", "value", "intermediate.dense"}
    model = peft.get_peft_model(plain_model(small_model), config).eval()
    randomise(model)
    model.save_pretrained(tmp_path / "made_by_peft")
    with torch.no_grad():
        logits = model(**padded_inputs(rows_of(small_model), base.architecture.model_type))["logits"]
    return tmp_path / "made_by_peft", logits


def test_an_adapter_made_by_peft_gives_its_logits_on_the_engine(
    small_model: Path, peft_adapter: tuple[Path, Tensor]
) -> None:
    folder, expected = peft_adapter
    logits = engine_logits(small_base(small_model), folder, rows_of(small_model))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sites", [("query", "value"), SITES, ("up",), ("attention_output", "down")])
def test_an_adapter_of_the_engine_gives_its_logits_in_peft(small_model: Path, tmp_path: Path, sites: tuple) -> None:
    base = small_base(small_model)
    save_adapter(tmp_path, base, random_adapter(base, sites=sites), base_name=str(small_model))
    model = peft.PeftModel.from_pretrained(plain_model(small_model), tmp_path).eval()
    rows = rows_of(small_model)
    with torch.no_grad():
        expected = model(**padded_inputs(rows, base.architecture.model_type))["logits"]
    torch.testing.assert_close(engine_logits(base, tmp_path, rows), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_a_pooler_that_the_base_lacks_is_trained_and_saved(family: str, tmp_path: Path) -> None:
    """A masked-language checkpoint has no pooler; Transformers then draws one, and PEFT must load ours instead."""
    folder = save_small_model(family, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in weights.items() if "pooler" not in name},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    base = small_base(folder)
    assert len(base.trained_head()) == 2
    save_adapter(tmp_path, base, random_adapter(base), base_name=str(folder))
    model = peft.PeftModel.from_pretrained(plain_model(folder), tmp_path).eval()
    rows = rows_of(folder)
    with torch.no_grad():
        expected = model(**padded_inputs(rows, family))["logits"]
    torch.testing.assert_close(engine_logits(base, tmp_path, rows), expected, rtol=1e-5, atol=1e-5)


def test_a_lost_distilbert_pre_classifier_is_named(tmp_path: Path) -> None:
    folder = save_small_model("distilbert", tmp_path / "model")
    base = small_base(folder)
    save_adapter(tmp_path, base, random_adapter(base), base_name=str(folder))
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    save_file(
        {name: tensor for name, tensor in tensors.items() if "pre_classifier" not in name}, tmp_path / WEIGHTS_FILE
    )
    with pytest.raises(AdapterFormatError, match="pre_classifier"):
        load_adapter(tmp_path, base)


Damage = Callable[[Path], None]


def change_config(**changes: object) -> Damage:
    def damage(folder: Path) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        (folder / CONFIG_FILE).write_text(json.dumps({**config, **changes}), encoding="utf-8")

    return damage


def change_tensors(change: Callable[[dict[str, Tensor]], None]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_FILE)
        change(tensors)
        save_file(tensors, folder / WEIGHTS_FILE, {"format": "pt"})

    return damage


def spoil(value: float) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: next(iter(tensors.values())).view(-1)[0].fill_(value) and None


def cut_off(folder: Path) -> None:
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])


class Executed:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("executed"),))


def rename_a_pickle(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(pickle.dumps(Executed()))


DAMAGES: dict[str, Damage] = {
    "no weights": lambda folder: (folder / WEIGHTS_FILE).unlink(),
    "no config": lambda folder: (folder / CONFIG_FILE).unlink(),
    "config is not JSON": lambda folder: (folder / CONFIG_FILE).write_text("{"),
    "config is a list": lambda folder: (folder / CONFIG_FILE).write_text("[]"),
    "config is nested": lambda folder: (folder / CONFIG_FILE).write_text("[" * 100_000),
    "weights are cut off": cut_off,
    "weights are empty": lambda folder: (folder / WEIGHTS_FILE).write_bytes(b""),
    "weights are a pickle": rename_a_pickle,
    "a tensor is missing": change_tensors(lambda tensors: tensors.popitem() and None),
    "a tensor is too many": change_tensors(lambda tensors: tensors.update(more=torch.zeros(2))),
    "a tensor has another shape": change_tensors(
        lambda tensors: tensors.update({name: tensor[:1] for name, tensor in list(tensors.items())[:1]})
    ),
    "not a number": change_tensors(spoil(float("nan"))),
    "infinite": change_tensors(spoil(float("-inf"))),
    "another kind of adapter": change_config(peft_type="IA3"),
    "DoRA": change_config(use_dora=True),
    "own scales": change_config(alpha_pattern={"query": 32}),
    "own ranks": change_config(rank_pattern={"query": 8}),
    "changes the base when loaded": change_config(init_lora_weights="pissa"),
    "only after some words": change_config(alora_invocation_tokens=[5, 6]),
    "several layers from one": change_config(layer_replication=[[0, 2], [1, 3]]),
    "a mixture by the input": change_config(arrow_config={"top_k": 2}),
    "unknown modules": change_config(target_modules=["c_attn"]),
    "no modules": change_config(target_modules=None),
    "modules by a pattern": change_config(target_modules=".*(query|value)"),
    "a rank of nothing": change_config(r=0),
    "a rank in words": change_config(r="four"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_an_adapter_that_cannot_be_right_is_refused(
    damage: Damage, small_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = small_base(small_bert)
    save_adapter(tmp_path, base, random_adapter(base), base_name=str(small_bert))
    load_adapter(tmp_path, base)
    damage(tmp_path)
    with pytest.raises(AdapterFormatError):
        load_adapter(tmp_path, base)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("family", sorted(set(CONFIGS) - {"bert"}))
def test_an_adapter_of_another_base_is_refused(family: str, small_bert: Path, tmp_path: Path) -> None:
    base = small_base(small_bert)
    save_adapter(tmp_path / "..", base, random_adapter(base), base_name=str(small_bert))
    other = small_base(save_small_model(family, tmp_path))
    with pytest.raises(AdapterFormatError):
        load_adapter(tmp_path / "..", other)


def test_an_adapter_saved_as_a_pickle_is_never_opened(
    small_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = small_base(small_bert)
    save_adapter(tmp_path, base, random_adapter(base), base_name=str(small_bert))
    shutil.move(tmp_path / WEIGHTS_FILE, tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(Executed()))
    with pytest.raises(AdapterFormatError, match=r"no adapter_model\.safetensors"):
        load_adapter(tmp_path, base)
    assert not (tmp_path / "executed").exists()


def test_saving_twice_gives_the_same_bytes(small_bert: Path, tmp_path: Path) -> None:
    base = small_base(small_bert)
    written = []
    for _ in range(2):
        save_adapter(tmp_path, base, random_adapter(base), base_name=str(small_bert))
        written.append([(tmp_path / name).read_bytes() for name in (WEIGHTS_FILE, CONFIG_FILE)])
    assert written[0] == written[1]


def test_every_tensor_is_named_as_peft_names_it(peft_adapter: tuple[Path, Tensor], small_model: Path) -> None:
    folder, _ = peft_adapter
    base = small_base(small_model)
    save_adapter(folder.parent, base, load_adapter(folder, base), base_name=str(small_model))
    theirs, ours = load_file(folder / WEIGHTS_FILE), load_file(folder.parent / WEIGHTS_FILE)
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[name].numpy(), ours[name].numpy()) for name in theirs)
