from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from loramill.engine.model_labels import ModelLabels
from loramill.errors import ConflictError, ModelError, NotFoundError, ReloadMismatchError, StorageError
from loramill.experiments.folder import ExperimentFolder
from loramill.training import export
from loramill.training.export import export_model
from small_models import save_small_model
from small_modules import save_small_module
from small_runs import colour_row, new_folder, small_config, train, write_rows


def train_family(family: str, home: Path) -> ExperimentFolder:
    """A small model with three named classes."""
    rows = write_rows(home / "rows", colour_row, train=48, validation=24)
    model = save_small_model(family, home / "model")
    return train(small_config(model, rows, training__num_train_epochs=2), home)[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ExperimentFolder:
    return train_family("bert", tmp_path_factory.mktemp("bert"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["roberta", "distilbert", "albert"])
def test_every_family_merges(family: str, tmp_path: Path) -> None:
    done = export_model(train_family(family, tmp_path), tmp_path / "merged", "merged")
    assert done.difference <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", ["xlnet", "gpt2"])
def test_families_that_pad_on_the_left_or_have_no_padding(family: str, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows", colour_row, train=48, validation=24)
    model = save_small_module(family, tmp_path / "model")
    _, folder = train(small_config(model, rows), tmp_path)
    for kind in ("adapter", "merged"):
        assert export_model(folder, tmp_path / kind, kind).difference <= 1e-4
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    if family == "gpt2":
        assert export_model(folder, tmp_path / "onnx", "onnx").difference <= 1e-4
    else:
        with pytest.raises(ModelError, match=r"ONNX exporter cannot .* family xlnet: .*aten\.sub"):
            export_model(folder, tmp_path / "onnx", "onnx")


def test_one_model_without_an_adapter(
    trained: ExperimentFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = export_model(trained, tmp_path / "merged", "merged")
    assert capfd.readouterr() == ("", "")  # no bars either
    assert done.difference <= 1e-5
    model = AutoModelForSequenceClassification.from_pretrained(done.folder)
    assert set(model.config.id2label.values()) == {"red", "green", "blue"}
    tokens = AutoTokenizer.from_pretrained(done.folder)(["a b c"], return_tensors="pt")
    with torch.no_grad():
        assert model(**tokens).logits.shape == (1, 3)
    assert not [file.name for file in done.folder.iterdir() if file.suffix in (".bin", ".pt", ".pkl")]


@pytest.mark.parametrize("changes", [{}, {"lora__use_dora": True}])
def test_a_base_that_was_a_classifier_of_other_classes(changes: dict[str, Any], tmp_path: Path) -> None:
    model = save_small_model("bert", tmp_path / "model")
    AutoModelForSequenceClassification.from_pretrained(model, num_labels=5).save_pretrained(model)
    rows = write_rows(tmp_path / "rows", colour_row, train=48, validation=24)
    _, folder = train(small_config(model, rows, **changes), tmp_path)
    for kind in ("adapter", "merged"):
        assert export_model(folder, tmp_path / kind, kind).difference <= 1e-4


def test_the_adapter_as_it_is(trained: ExperimentFolder, tmp_path: Path) -> None:
    done = export_model(trained, tmp_path / "adapter", "adapter")
    assert done.difference <= 1e-5
    assert json.loads((done.folder / "adapter_config.json").read_text())["peft_type"] == "LORA"


@pytest.mark.slow
def test_an_onnx_graph(trained: ExperimentFolder, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    import onnxruntime

    done = export_model(trained, tmp_path / "onnx", "onnx")
    assert done.difference <= 1e-4
    session = onnxruntime.InferenceSession(done.folder / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    for texts in (["a"], ["a b c d e f", "f e d c b a"]):
        (logits,) = session.run(["logits"], dict(tokenizer(texts, return_tensors="np")))
        assert logits.shape == (len(texts), 3)


def test_what_differs_is_not_exported(
    trained: ExperimentFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_trained_logits", lambda model, files: torch.full((len(export.PROBES), 3), 9.0))
    with pytest.raises(ReloadMismatchError, match="other logits"):
        export_model(trained, tmp_path / "wrong", "merged")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_nothing_made_of_nothing(trained: ExperimentFolder, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConflictError, match="exists"):
        export_model(trained, tmp_path / "mine", "merged")
    with pytest.raises(NotFoundError, match="finished model"):
        export_model(new_folder(tmp_path), tmp_path / "out", "merged")


def test_a_place_that_cannot_be_written_is_named(trained: ExperimentFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        export_model(trained, tmp_path / "file" / "model", "adapter")


def test_a_missing_package_is_named(trained: ExperimentFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(NotFoundError, match="onnx"):
        export_model(trained, tmp_path / "out", "onnx")


def test_the_labels_travel_with_an_adapter(trained: ExperimentFolder, tmp_path: Path) -> None:
    folder = export_model(trained, tmp_path / "adapter", "adapter").folder
    assert ModelLabels.read(folder).label_names == ModelLabels.read(trained.final_model).label_names
