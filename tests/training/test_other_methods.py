"""Runs off the beaten path: families without a fast path, DoRA, base dropout, PiSSA, chosen layers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from loramill.engine.adapters import BaseNeeds, load_any_base, new_adapter
from loramill.engine.bank import AdapterBank
from loramill.engine.low_rank_adapter import AdapterSpec
from loramill.engine.peft_format import load_adapter, save_adapter
from loramill.engine.step import predict_logits
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.errors import ConfigError
from loramill.inference.served_model import LoadedBase
from loramill.training.export import export_model
from small_models import padded_inputs, save_small_model, small_base
from small_modules import save_small_module
from small_runs import score_row, small_config, topics_row, train, write_rows

TEXTS = ["a b c", "d a", "x y z b", "k"]


def final_logits(folder: Path, model: Path, labels: int) -> torch.Tensor:
    """Of the saved model, by PEFT on the original base."""
    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=labels)
    peft = PeftModel.from_pretrained(base, folder).eval()
    rows = tokenize(load_tokenizer(folder), TEXTS, None, max_length=32)
    with torch.no_grad():
        return peft(**padded_inputs(rows, base.config.model_type)).logits


@pytest.mark.parametrize("family", ["deberta-v2", "modernbert"])
def test_a_family_without_a_fast_path_trains_says_so_and_resumes_exactly(family: str, tmp_path: Path) -> None:
    config = small_config(
        save_small_module(family, tmp_path / "model"),
        write_rows(tmp_path / "rows"),
        lora__lora_dropout=0.1,
        training__num_train_epochs=3,
    )
    events: list[dict[str, Any]] = []
    result, whole = train(config, tmp_path, on_event=events.append)
    assert result.metrics["eval"]["accuracy"] > 0.8
    (said,) = [event["message"] for event in events if "own forward" in event.get("message", "")]
    assert family in said

    steps = iter(range(9))
    stopped, folder = train(config, tmp_path, should_stop=lambda: next(steps, None) is None)
    assert stopped.status == "stopped"
    resumed, _ = train(config, tmp_path, folder=folder, resume=True)
    assert resumed.status == "finished"
    files = [run.final_model / "adapter_model.safetensors" for run in (whole, folder)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_family_that_cannot_compute_in_bfloat16_says_so_and_takes_float32(tmp_path: Path) -> None:
    model = save_small_module("deberta", tmp_path / "model")
    config = small_config(model, write_rows(tmp_path / "rows"), training__bf16=True)
    events: list[dict[str, Any]] = []
    result, folder = train(config, tmp_path, on_event=events.append)
    assert result.metrics["system"]["precision"] == "float32"
    (said,) = [event["message"] for event in events if event.get("message", "").startswith("Computing on")]
    assert said.endswith("in float32, since deberta cannot in bfloat16.")
    served = LoadedBase.load(str(model), device=torch.device("cpu"), dtype=torch.bfloat16, needs=BaseNeeds())
    adapter = load_adapter(folder.final_model, served.frozen, labels=2)
    rows = served.tokenize(TEXTS, None, max_length=32)
    logits = predict_logits(AdapterBank(served.frozen, [adapter]), 0, rows)
    torch.testing.assert_close(logits, final_logits(folder.final_model, model, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("family", ["deberta-v2", "modernbert"])
def test_the_head_of_a_base_that_was_a_classifier_is_drawn_anew_trains_and_is_saved(
    family: str, labels: int, tmp_path: Path
) -> None:
    model = save_small_module(family, tmp_path / "model", labels=labels)
    result, folder = train(small_config(model, write_rows(tmp_path / "rows")), tmp_path)
    assert result.status == "finished"
    saved = load_file(folder.final_model / "adapter_model.safetensors")
    (weight,) = [name for name in saved if name.endswith("classifier.weight")]
    assert len(saved[weight]) == 2
    if labels == 2:
        assert not torch.equal(saved[weight], load_file(model / "model.safetensors")["classifier.weight"])
    for kind in ("adapter", "merged"):
        assert export_model(folder, tmp_path / kind, kind).difference <= 1e-4


def test_what_a_language_model_brings_for_the_head_stays_as_it_is(tmp_path: Path) -> None:
    model = save_small_module("modernbert", tmp_path / "model")
    torch.manual_seed(1)
    AutoModelForMaskedLM.from_pretrained(model).save_pretrained(model)
    base = _module_base(model, BaseNeeds())
    new_adapter(base, AdapterSpec(rank=4, alpha=8, sites=(), dropout=0.0, labels=2, seed=1))
    own = {
        name.rpartition(".base_layer")[0] or name: value
        for name, value in base.module._hosts[2]._model.named_parameters()
    }
    (dense,) = [value for name, value in own.items() if name.endswith("head.dense.weight")]
    assert torch.equal(dense, load_file(model / "model.safetensors")["head.dense.weight"])


@pytest.mark.parametrize(
    ("changes", "noted"),
    [
        ({"lora__use_dora": True}, "DoRA"),
        ({"training__base_dropout": True, "training__num_train_epochs": 16}, "dropout of the base"),
        ({"lora__init_lora_weights": "pissa"}, None),
        ({"lora__layers_to_transform": [1, 2]}, None),
    ],
)
def test_each_method_learns_and_loads_in_peft(changes: dict[str, Any], noted: str | None, tmp_path: Path) -> None:
    model = save_small_model("bert", tmp_path / "model")
    config = small_config(model, write_rows(tmp_path / "rows"), **{"training__num_train_epochs": 4, **changes})
    events: list[dict[str, Any]] = []
    result, folder = train(config, tmp_path, on_event=events.append)
    assert result.metrics["eval"]["accuracy"] > 0.8
    assert result.metrics["train"]["base_dropout"] is config.training.base_dropout
    messages = " ".join(event.get("message", "") for event in events)
    assert (noted or "Training") in messages
    assert ("own forward" in messages) is (noted is not None)

    needs = BaseNeeds(dora=config.lora.use_dora)
    base = small_base(model) if not needs.dora else _module_base(model, needs)
    rows = tokenize(load_tokenizer(folder.final_model), TEXTS, None, max_length=32)
    ours = predict_logits(AdapterBank(base, [load_adapter(folder.final_model, base, labels=2)]), 0, rows)
    torch.testing.assert_close(ours, final_logits(folder.final_model, model, 2), rtol=1e-5, atol=1e-5)


def _module_base(model: Path, needs: BaseNeeds) -> Any:
    from loramill.base_models import locate_base_model

    files = locate_base_model(str(model))
    cpu = torch.device("cpu")
    return load_any_base(files.config, files.folder, files.weights, dtype=torch.float32, device=cpu, needs=needs)


@pytest.mark.parametrize("family", ["bert", "albert", "distilbert"])
@pytest.mark.parametrize("stabilised", [False, True])
def test_pissa_starts_at_the_base_and_steps_as_peft_does(family: str, stabilised: bool, tmp_path: Path) -> None:
    base = small_base(save_small_model(family, tmp_path / "model"), torch.float64)
    sites = ("query", "value", "down")
    spec = AdapterSpec(rank=4, alpha=8, sites=sites, dropout=0.0, labels=3, seed=1, rank_stabilised=stabilised)
    plain = new_adapter(base, spec, dtype=torch.float64)
    pissa = new_adapter(base, dataclasses.replace(spec, init="pissa"), dtype=torch.float64)
    rows = tokenize(load_tokenizer(tmp_path / "model"), TEXTS, None, max_length=32)
    bank = AdapterBank(base, [plain, pissa])
    torch.testing.assert_close(predict_logits(bank, 0, rows), predict_logits(bank, 1, rows), rtol=1e-9, atol=1e-9)

    pissa.values += torch.empty(pissa.values.shape, dtype=torch.float64).normal_(
        0, 0.05, generator=torch.Generator().manual_seed(2)
    )
    expected = predict_logits(bank, 1, rows)
    assert not torch.allclose(expected, predict_logits(bank, 0, rows))
    (tmp_path / "saved").mkdir()
    save_adapter(tmp_path / "saved", base, pissa, base_name="base")
    stored = load_adapter(tmp_path / "saved", base, dtype=torch.float64)
    assert stored.spec.rank == 8
    torch.testing.assert_close(predict_logits(AdapterBank(base, [stored]), 0, rows), expected, rtol=1e-9, atol=1e-9)
    again = new_adapter(base, dataclasses.replace(spec, init="pissa", seed=9), dtype=torch.float64)
    again.copy_from(stored)
    assert torch.equal(again.values, pissa.values)


def test_pissa_starts_from_the_principal_part_as_in_peft(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = save_small_model("bert", tmp_path / "model")
    base = small_base(model)
    ours = new_adapter(
        base, AdapterSpec(rank=4, alpha=8, sites=("query",), dropout=0.0, labels=2, seed=1, init="pissa")
    )
    module = AutoModelForSequenceClassification.from_pretrained(model)
    peft = get_peft_model(
        module, LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query"], init_lora_weights="pissa")
    )
    layer = peft.base_model.model.bert.encoder.layer[1].attention.self.query
    pair = ours.pairs["encoder.layer.1", "qkv"]
    theirs = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(pair.lora_b[0] @ pair.lora_a, theirs, rtol=1e-4, atol=1e-5)


def test_pissa_resumes_exactly(tmp_path: Path) -> None:
    model = save_small_model("bert", tmp_path / "model")
    config = small_config(
        model, write_rows(tmp_path / "rows"), training__num_train_epochs=2, lora__init_lora_weights="pissa"
    )
    _, whole = train(config, tmp_path)
    steps = iter(range(5))
    _, folder = train(config, tmp_path, should_stop=lambda: next(steps, None) is None)
    train(config, tmp_path, folder=folder, resume=True)
    files = [run.final_model / "adapter_model.safetensors" for run in (whole, folder)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("row", [topics_row, score_row])
def test_tasks_of_every_kind_train_through_the_module(row: Any, tmp_path: Path) -> None:
    config = small_config(
        save_small_module("modernbert", tmp_path / "model"),
        write_rows(tmp_path / "rows", row),
        training__num_train_epochs=4,
    )
    result, _ = train(config, tmp_path)
    measured = result.metrics["eval"]
    assert measured["pearson"] > 0.9 if row is score_row else measured["f1_macro"] > 0.6


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("bert", {"lora__layers_to_transform": [3]}, "layers 0 to 2"),
        ("albert", {"lora__layers_to_transform": [0]}, "share their weights"),
        ("bert", {"lora__init_lora_weights": "pissa", "training__base_dropout": True}, "fast path"),
    ],
)
def test_what_a_base_cannot_do_is_named(family: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = small_config(save_small_model(family, tmp_path / "model"), write_rows(tmp_path / "rows"), **changes)
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path)
