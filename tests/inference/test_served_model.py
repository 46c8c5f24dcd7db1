"""Adapters that must not be served: each is refused with a name for it, and nothing of them is executed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loramill.engine.model_labels import LABELS_FILE, ModelLabels
from loramill.engine.peft_format import CONFIG_FILE, WEIGHTS_FILE
from loramill.errors import AdapterFormatError
from loramill.inference.saved_model import SavedModel
from loramill.inference.served_model import LoadedBase, ServedModel
from served_models import Experiments, drawn_adapter

CPU = torch.device("cpu")


def load(experiments: Experiments, experiment_id: str) -> ServedModel:
    saved = SavedModel.read(experiments.save_constant(experiment_id, 1))
    base = LoadedBase.load(saved.labels.base_model, device=CPU, dtype=torch.float32)
    return ServedModel.load(saved, base)


def refuse(experiments: Experiments, damage: Callable[[Path], None]) -> str:
    """Why a model is refused after its ``final_model`` was damaged."""
    folder = experiments.save_constant("damaged", 1)
    base = LoadedBase.load(str(experiments.model), device=CPU, dtype=torch.float32)
    damage(folder.final_model)
    with pytest.raises(AdapterFormatError) as caught:
        ServedModel.load(SavedModel.read(folder), base)
    return str(caught.value)


def change_weights(folder: Path, name: str, value: torch.Tensor) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    tensors[next(key for key in tensors if name in key)] = value
    save_file(tensors, folder / WEIGHTS_FILE)


def change_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_a_good_model_is_loaded(experiments: Experiments) -> None:
    model = load(experiments, "good")
    assert model.adapter.spec.labels == 10
    assert model.base.language == "English"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(experiments: Experiments, value: float) -> None:
    rank, hidden = 4, 32
    message = refuse(experiments, lambda folder: change_weights(folder, "lora_A", torch.full((rank, hidden), value)))
    assert "not finite" in message


def test_a_pickle_under_another_name_is_not_opened(experiments: Experiments, tmp_path: Path) -> None:
    trace = tmp_path / "executed"

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (trace,))

    message = refuse(experiments, lambda folder: (folder / WEIGHTS_FILE).write_bytes(pickle.dumps(Attack())) and None)
    assert "not a safetensors file" in message
    assert not trace.exists()


def test_another_shape(experiments: Experiments) -> None:
    message = refuse(experiments, lambda folder: change_weights(folder, "lora_B", torch.zeros(64, 4)))
    assert "has the shape [64, 4]" in message


def test_an_adapter_for_another_base(experiments: Experiments, small_bert: Path) -> None:
    labels = ModelLabels(("a",) * 10, "single_label_classification", "package:other", 32)
    assert "other weights" in refuse(experiments, labels.write)


def test_an_adapter_for_other_weights_of_the_same_name(experiments: Experiments) -> None:
    message = refuse(experiments, lambda folder: change_json(folder / LABELS_FILE, base_hash="0" * 64))
    assert "other weights" in message


def test_another_tokenizer(experiments: Experiments) -> None:
    def change(folder: Path) -> None:
        file = folder / "tokenizer.json"
        file.write_text(file.read_text(encoding="utf-8").replace('"a": 4', '"a": 5'), encoding="utf-8")

    assert "another tokenizer" in refuse(experiments, change)


def test_more_logits_than_names(experiments: Experiments) -> None:
    message = refuse(experiments, lambda folder: change_json(folder / LABELS_FILE, label_names=["a", "b"]))
    assert "10 logits, but 2 label names" in message


def test_another_kind_of_adapter(experiments: Experiments) -> None:
    assert refuse(experiments, lambda folder: change_json(folder / CONFIG_FILE, peft_type="IA3"))


def test_a_config_that_asks_for_code_gets_none(experiments: Experiments) -> None:
    folder = experiments.save_constant("good", 1)
    change_json(folder.final_model / CONFIG_FILE, auto_mapping={"parent_library": "os"}, trust_remote_code=True)
    base = LoadedBase.load(str(experiments.model), device=CPU, dtype=torch.float32)
    try:
        model = ServedModel.load(SavedModel.read(folder), base)
    except AdapterFormatError:
        return
    assert model.adapter.spec.labels == 10


def test_a_regression_needs_no_names(experiments: Experiments) -> None:
    adapter = drawn_adapter(experiments.base, 1, labels=1)
    folder = experiments.save("score", adapter, problem_type="regression", label_names=[])
    base = LoadedBase.load(str(experiments.model), device=CPU, dtype=torch.float32)
    assert ServedModel.load(SavedModel.read(folder), base).adapter.spec.labels == 1
