"""The folder of a final model: whole, complete for whoever loads it, and described."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from fault_injection import FaultInjector
from loramill.base_models import locate_base_model
from loramill.engine.model_labels import ModelLabels
from loramill.errors import DiskFullError
from loramill.training.final_model import save_final_model
from small_models import VOCABULARY, random_adapter, save_small_model, save_tokenizer_config, small_base
from small_runs import small_config


def save(folder: Path, model: Path, accuracy: float = 0.75) -> None:
    base = small_base(model)
    save_final_model(
        folder,
        base,
        random_adapter(base),
        files=locate_base_model(str(model)),
        config=small_config(model, "rows", data__max_length=512, experiment_name="My run"),
        label_names=("red", "green", "blue"),
        problem_type="single_label_classification",
        metrics={"accuracy": accuracy, "samples": 3, "per_class": {}},
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    model = save_small_model("bert", tmp_path / "model")
    save_tokenizer_config(model)
    return model


def test_labels_say_what_a_reader_needs(model: Path, tmp_path: Path) -> None:
    save(tmp_path / "final_model", model)
    labels = ModelLabels.read(tmp_path / "final_model")
    assert labels.label_names == ("red", "green", "blue")
    assert labels.max_length == 64  # the base has no more positions
    assert labels.base_hash == locate_base_model(str(model)).content_hash


def test_transformers_loads_the_tokenizer(model: Path, tmp_path: Path) -> None:
    save(tmp_path / "final_model", model)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "final_model")
    assert tokenizer("a b")["input_ids"] == AutoTokenizer.from_pretrained(model)("a b")["input_ids"]


def test_a_vocabulary_becomes_a_tokenizer_that_needs_nothing_else(model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    save(tmp_path / "final_model", model)
    assert (tmp_path / "final_model" / "tokenizer.json").is_file()


def test_the_card_has_the_metadata_that_hubs_read(model: Path, tmp_path: Path) -> None:
    save(tmp_path / "final_model", model)
    card = (tmp_path / "final_model" / "README.md").read_text(encoding="utf-8")
    _, metadata, text = card.split("---\n", 2)
    assert yaml.safe_load(metadata)["library_name"] == "peft"
    assert "# My run" in text
    assert "| accuracy | 0.7500 |" in text
    assert "red, green, blue" in text


def test_the_base_is_named_for_peft(model: Path, tmp_path: Path) -> None:
    save(tmp_path / "final_model", model)
    config = json.loads((tmp_path / "final_model" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(model)


def test_a_full_disk_leaves_the_model_from_before(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "final_model"
    save(folder, model)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.copytree(folder, tmp_path / "another")
    with FaultInjector().installed() as injector:
        save(tmp_path / "another", model)
    last_rename = max(place for place, call in enumerate(injector.calls, start=1) if call == "rename")
    for number, call in enumerate(injector.calls[:last_rename], start=1):
        if call in ("write", "fsync", "replace", "rename"):
            with pytest.raises(DiskFullError), FaultInjector("disk full", number).installed():
                save(folder, model, accuracy=0.5)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, number
            assert {path.name for path in tmp_path.iterdir()} == {"model", "final_model", "another"}
