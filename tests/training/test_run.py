"""Whole runs on small data: every kind of task and family learns, is recorded, and reloads in PEFT."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, TrainerState

from loramill.config.load import load_config
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.errors import ConfigError, DataRefusedError, EmptyDatasetError, LabelError, NonFiniteLossError
from loramill.experiments.folder import ExperimentFolder
from loramill.training.checkpoint_manager import CheckpointManager, verify_checkpoint
from small_models import CONFIGS, VOCABULARY, padded_inputs, save_small_model
from small_runs import (
    binary_row,
    colour_row,
    new_folder,
    pair_row,
    score_row,
    small_config,
    topics_row,
    train,
    write_rows,
)

Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model("bert", tmp_path_factory.mktemp("bert"))


def of_type(events: Events, kind: str) -> Events:
    return [event for event in events if event["type"] == kind]


def stop_after(steps: int) -> Callable[[], bool]:
    asked = iter([False] * steps)
    return lambda: next(asked, True)


def read_rows(data: Path, split: str) -> Events:
    return [json.loads(line) for line in (data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def peft_logits(model: Path, final_model: Path, rows: Events, labels: int) -> torch.Tensor:
    plain = AutoModelForSequenceClassification.from_pretrained(model, num_labels=labels)
    loaded = peft.PeftModel.from_pretrained(plain, final_model).eval()
    pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
    tokens = tokenize(load_tokenizer(final_model), [row["text"] for row in rows], pairs, max_length=64)
    with torch.no_grad():
        logits: torch.Tensor = loaded(**padded_inputs(tokens, plain.config.model_type)).logits
    return logits


def assert_the_saved_model_says_what_the_run_measured(
    folder: ExperimentFolder, model: Path, data: Path, labels: int
) -> None:
    """The predictions that the run recorded, from PEFT."""
    recorded = pq.read_table(folder.predictions_file).to_pydict()
    logits = peft_logits(model, folder.final_model, read_rows(data, "validation"), labels)
    problem = folder.read_data()["problem_type"]
    if problem == "single_label_classification":
        expected = logits.softmax(1)
    else:
        expected = logits.sigmoid() if problem == "multi_label_classification" else logits
    torch.testing.assert_close(torch.tensor(recorded["probabilities"]), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family_learns_and_reloads_in_peft(family: str, tmp_path: Path) -> None:
    model, data = save_small_model(family, tmp_path / "model"), write_rows(tmp_path / "rows")
    events: Events = []
    config = small_config(model, data, training__num_train_epochs=8, training__logging_steps=12)
    result, folder = train(config, tmp_path, on_event=events.append)
    assert result.status == "finished"
    assert result.metrics["eval"]["accuracy"] > 0.8
    assert folder.read_metrics() == result.metrics
    assert_the_saved_model_says_what_the_run_measured(folder, model, data, 2)

    losses = [event["loss"] for event in of_type(events, "log")]
    assert [event["step"] for event in of_type(events, "log")] == [12, 24, 36, 48]
    assert losses[-1] < losses[0] * 0.8
    assert [event["step"] for event in of_type(events, "eval")] == [6, 12, 18, 24, 30, 36, 42, 48]


@pytest.mark.parametrize(
    ("row", "names", "problem", "labels"),
    [
        (colour_row, ["blue", "green", "red"], "single_label_classification", 3),
        (pair_row, ["0", "1"], "single_label_classification", 2),
        (topics_row, ["apples", "bees"], "multi_label_classification", 2),
        (score_row, ["score"], "regression", 1),
    ],
)
def test_every_kind_of_task_learns(
    row: Callable[..., Any], names: list[str], problem: str, labels: int, bert: Path, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "rows", row, train=144)
    result, folder = train(small_config(bert, data, training__num_train_epochs=8), tmp_path)
    measured, recorded = result.metrics["eval"], folder.read_data()
    assert (recorded["label_names"], recorded["problem_type"]) == (names, problem)
    if problem == "regression":
        assert measured["pearson"] > 0.6
        assert measured["mse"] < 0.9
    else:
        assert measured["f1_macro"] > 0.75
    assert_the_saved_model_says_what_the_run_measured(folder, bert, data, labels)


def test_what_a_run_leaves_behind(bert: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows")
    config = small_config(bert, data, training__num_train_epochs=2, lora__lora_dropout=0.1)
    result, folder = train(config, tmp_path)
    assert load_config(folder.config_file) == config
    metrics = result.metrics
    assert metrics["train"]["samples"] == 96
    assert metrics["train"]["steps"] == 12
    assert metrics["train"]["epochs"] == 2.0
    assert metrics["train"]["runtime"] > 0
    assert metrics["eval"]["samples"] == 48
    assert metrics["system"]["precision"] == "float32"
    assert metrics["system"]["reload_difference"] <= 1e-5
    assert set(folder.read_data()) >= {"train", "eval", "dataset_name", "label_names", "report"}
    assert {"python", "torch"} <= set(json.dumps(folder.read_environment()).lower().replace('"', " ").split())
    final = {path.name for path in folder.final_model.iterdir()}
    assert final >= {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "labels.json", "README.md"}
    hidden = [path for path in folder.path.rglob("*") if path.name.startswith(".")]
    assert hidden == []
    pickles = [path for path in folder.path.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert pickles == []

    index = json.loads((folder.artifacts / "checkpoints.json").read_text(encoding="utf-8"))
    for name in set(index.values()):
        verify_checkpoint(folder.artifacts / name)
        state = TrainerState.load_from_json(str(folder.artifacts / name / "trainer_state.json"))
        assert state.global_step == int(name.rpartition("-")[2])
        assert state.max_steps == 12
        assert state.best_metric == max(
            entry["eval_accuracy"] for entry in state.log_history if "eval_accuracy" in entry
        )
        assert state.best_model_checkpoint == f"checkpoint-{state.best_global_step}"


def test_the_first_step_counts_its_own_time(bert: Path, tmp_path: Path) -> None:
    events: Events = []
    config = small_config(bert, write_rows(tmp_path / "rows"), training__logging_steps=1)
    started = time.perf_counter()
    train(config, tmp_path, on_event=events.append)
    seconds = time.perf_counter() - started
    for event in of_type(events, "log"):
        rows = event["step"] * config.training.per_device_train_batch_size
        assert event["samples_per_second"] > 0.9 * rows / seconds
        assert event["samples_per_second"] < rows / 1e-5, "no step is that fast"
        assert event["samples_per_second"] == pytest.approx(rows / event["train_seconds"], rel=0.1)


def checkpoints_of(folder: ExperimentFolder) -> set[str]:
    return {path.name for path in folder.artifacts.glob("checkpoint-*")}


def run_to_the_last_step(config: Any, home: Path, steps: int) -> tuple[Events, ExperimentFolder]:
    """All steps but the last, so that no model is saved and reloaded."""
    events: Events = []
    result, folder = train(config, home, on_event=events.append, should_stop=stop_after(steps - 1))
    assert result.status == "stopped"
    return events, folder


@pytest.mark.parametrize(
    ("changes", "evaluated", "saved"),
    [
        ({"training__eval_strategy": "epoch"}, [6, 12], [6, 12, 17]),
        ({"training__eval_strategy": "no"}, [], [17]),
        ({"training__eval_strategy": "no", "training__save_steps": 7}, [], [7, 14, 17]),
        ({"training__eval_strategy": "steps", "training__eval_steps": 8}, [8, 16], [8, 16, 17]),
        ({"training__eval_strategy": "steps", "training__logging_steps": 9}, [9], [9, 17]),
        ({"training__eval_strategy": "epoch", "training__save_steps": 4}, [6, 12], [4, 6, 8, 12, 16, 17]),
        ({"training__gradient_accumulation_steps": 2}, [3, 6, 9, 12, 15], [3, 6, 9, 12, 15, 17]),
    ],
)
def test_evaluations_and_checkpoints_come_when_they_are_due(
    changes: dict[str, object], evaluated: list[int], saved: list[int], bert: Path, tmp_path: Path
) -> None:
    epochs = 6 if "training__gradient_accumulation_steps" in changes else 3
    config = small_config(bert, write_rows(tmp_path / "rows"), training__num_train_epochs=epochs, **changes)
    events, folder = run_to_the_last_step(config, tmp_path, steps=18)
    assert [event["step"] for event in of_type(events, "eval")] == evaluated
    assert [event["step"] for event in of_type(events, "checkpoint")] == saved
    kept = CheckpointManager(folder.artifacts)
    assert kept.recover() is not None
    assert checkpoints_of(folder) == {one.name for one in (kept.best, kept.last, kept.fastest) if one}


def test_early_stopping_ends_the_run_with_the_best_checkpoint(bert: Path, tmp_path: Path) -> None:
    config = small_config(
        bert,
        write_rows(tmp_path / "rows"),
        training__num_train_epochs=50,
        training__learning_rate=1e-9,
        training__early_stopping_patience=2,
    )
    result, folder = train(config, tmp_path)
    assert result.metrics["train"]["stopped_early"] is True
    assert result.metrics["train"]["steps"] == 18
    assert result.metrics["train"]["best_step"] == 6
    assert checkpoints_of(folder) == {"checkpoint-6", "checkpoint-18"}


def test_the_time_limit_stops_with_a_checkpoint_and_resuming_has_as_long_again(bert: Path, tmp_path: Path) -> None:
    config = small_config(
        bert, write_rows(tmp_path / "rows"), training__num_train_epochs=10_000, training__max_seconds=0.3
    )
    folder, steps = new_folder(tmp_path / "results"), [0]
    for resume in (False, True):
        result, _ = train(config, tmp_path, folder=folder, resume=resume)
        assert result.status == "time_limit"
        last = CheckpointManager(folder.artifacts).recover()
        assert last is not None
        assert last.step > steps[-1]
        assert 0.3 * len(steps) <= last.seconds < 0.3 * len(steps) + 30
        steps.append(last.step)


def test_fractions_of_epochs_and_a_last_batch_that_is_smaller(bert: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows", train=40)
    config = small_config(bert, data, training__num_train_epochs=1.5, training__logging_steps=1)
    events, _ = run_to_the_last_step(config, tmp_path, steps=5)
    assert [event["total_steps"] for event in of_type(events, "log")] == [5] * 4
    assert [event["epoch"] for event in of_type(events, "log")] == [0.3333, 0.6667, 1.0, 1.3333]


def test_long_texts_are_counted_and_cut_or_refused(bert: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows")
    with (data / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "a " * 200, "label": 1}) + "\n")
    config = small_config(bert, data, data__max_length=512)
    events, _ = run_to_the_last_step(config, tmp_path, steps=3)
    (warning,) = of_type(events, "warning")
    assert warning["message"] == "1 of 97 train rows are longer than 64 tokens and are cut."
    with pytest.raises(DataRefusedError, match="1 of 97 train rows"):
        train(small_config(bert, data, data__on_long_text="refuse"), tmp_path)


@pytest.mark.parametrize(
    ("row", "name", "said"),
    [
        (binary_row, "acuracy", "accuracy"),
        (binary_row, "samples", "f1_macro"),
        (binary_row, "pearson", "auc"),
        (score_row, "f1_macro", "pearson"),
        (topics_row, "mse", "hamming_loss"),
    ],
)
def test_a_metric_that_nothing_measures_is_named_before_the_first_step(
    row: Callable[..., Any], name: str, said: str, bert: Path, tmp_path: Path
) -> None:
    events: Events = []
    config = small_config(bert, write_rows(tmp_path / "rows", row), training__metric_for_best_model=name)
    with pytest.raises(ConfigError, match=said):
        train(config, tmp_path, on_event=events.append)
    assert of_type(events, "log") == of_type(events, "eval") == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora__target_modules": ["q_lin", "query"]}, "q_lin"),
        ({"lora__init_lora_weights": "pissa", "lora__r": 512}, "lora.r"),
    ],
)
def test_what_the_base_cannot_have_is_a_problem_of_the_config(
    changes: dict[str, Any], said: str, bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        train(small_config(bert, write_rows(tmp_path / "rows"), **changes), tmp_path)


def test_one_class_to_evaluate_on_is_named_before_the_first_step(bert: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows")
    (data / "validation.jsonl").write_text('{"text": "a b", "label": 1}\n' * 4, encoding="utf-8")
    events: Events = []
    with pytest.raises(ConfigError, match="auc"):
        train(small_config(bert, data, training__metric_for_best_model="auc"), tmp_path, on_event=events.append)
    assert of_type(events, "log") == []


def test_a_loss_that_is_not_finite_stops_within_a_step_and_keeps_the_last_checkpoint(
    bert: Path, tmp_path: Path
) -> None:
    config = small_config(
        bert,
        write_rows(tmp_path / "rows"),
        lora__loraplus_lr_ratio=1e38,
        training__learning_rate=1.0,
        training__lr_scheduler_type="constant",
        training__warmup_ratio=0.5,
        training__save_steps=1,
        training__max_grad_norm=0,
    )
    folder = new_folder(tmp_path / "results")
    with pytest.raises(NonFiniteLossError) as caught:
        train(config, tmp_path, folder=folder)
    assert "learning_rate" in caught.value.fix
    last = CheckpointManager(folder.artifacts).recover()
    assert last is not None
    values = load_file(folder.artifacts / last.name / "adapter_model.safetensors").values()
    assert all(bool(torch.isfinite(value).all()) for value in values)


def test_a_base_with_infinite_weights_is_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    model = spoiled_model(tmp_path, token=None)
    with pytest.raises(NonFiniteLossError, match="step 1"):
        train(small_config(model, write_rows(tmp_path / "rows")), tmp_path)


def test_an_evaluation_that_is_not_finite_is_named(tmp_path: Path) -> None:
    """A token that only the evaluation has, with a weight that is not a number."""
    model, data = spoiled_model(tmp_path, token="e"), write_rows(tmp_path / "rows")
    with (data / "validation.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "e e a", "label": 1}) + "\n")
    with pytest.raises(NonFiniteLossError, match="evaluation loss is not finite for 1 of 49 rows"):
        train(small_config(model, data), tmp_path)


def spoiled_model(folder: Path, token: str | None) -> Path:
    model = save_small_model("bert", folder / "model")
    tensors = load_file(model / "model.safetensors")
    rows = slice(None) if token is None else VOCABULARY.index(token)
    tensors["embeddings.word_embeddings.weight"][rows] = float("inf")
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    return model


def test_data_that_cannot_be_trained_on_is_named(bert: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows")
    validation = (data / "validation.jsonl").read_text(encoding="utf-8")
    (data / "validation.jsonl").write_text(validation.replace('"label": 1', '"label": 7'), encoding="utf-8")
    with pytest.raises(LabelError, match="7"):
        train(small_config(bert, data), tmp_path)
    (data / "train.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(EmptyDatasetError):
        train(small_config(bert, data), tmp_path)
