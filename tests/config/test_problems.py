from __future__ import annotations

import json
from typing import Any

import pytest

from loramill.config.problems import find_problems
from loramill.config.schema import ExperimentConfig


def found(tree: dict[str, Any]) -> dict[str, str]:
    return {problem.key: problem.message for problem in find_problems(tree)}


@pytest.mark.parametrize(
    ("tree", "key", "message"),
    [
        ({"lora": {"r": "four"}}, "lora.r", "must be an integer, not 'four'"),
        ({"lora": {"r": 2.5}}, "lora.r", "must be an integer, not 2.5"),
        ({"lora": {"r": 5000}}, "lora.r", "must be at most 1024, not 5000"),
        ({"lora": {"lora_alpha": 0}}, "lora.lora_alpha", "must be above 0.0, not 0"),
        ({"lora": {"lora_dropout": 1}}, "lora.lora_dropout", "must be below 1.0, not 1"),
        ({"lora": {"target_modules": []}}, "lora.target_modules", "name at least one module, or say auto, not []"),
        ({"lora": {"target_modules": 3}}, "lora.target_modules", "must be 'auto' or a list such as [a, b], not 3"),
        ({"lora.r": 4}, "lora.r", "must stand as 'r' below 'lora'"),
        ({"model": {"name": {"a": 1}}}, "model.name", "must be text, not {'a': 1}"),
        ({"lora": {"layers_to_transform": ["a", "b"]}}, "lora.layers_to_transform", "must be an integer, not 'a'"),
        ({"lora": None}, "lora", "must be a section with keys of its own, not None"),
        ({"training": {"bf16": "maybe"}}, "training.bf16", "must be 'auto' or true or false, not 'maybe'"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate", "must be a finite number, not nan"),
        ({"training": {"device": "gpu"}}, "training.device", "use auto, cpu, mps, cuda or cuda:<index>, not 'gpu'"),
        (
            {"training": {"report_to": ["comet"]}},
            "training.report_to",
            "must be 'mlflow', 'tensorboard' or 'wandb', not 'comet'",
        ),
        ({"model": {"name": ""}}, "model.name", "must be text that is not empty, not ''"),
        ({"model": {"name": 3}}, "model.name", "must be text, not 3"),
        ({"optimizer": {}}, "optimizer", "unknown key"),
        ({"model": {"name": "a\0"}}, "model.name", r"must be text without NUL and half characters, not 'a\x00'"),
        ({"model": {"name": "\ud800"}}, "model.name", r"must be text without NUL and half characters, not '\ud800'"),
        (
            {"data": {"text_column": "\ud800"}},
            "data.text_column",
            r"must be text without NUL and half characters, not '\ud800'",
        ),
        (
            {"lora": {"target_modules": ["\udfff"]}},
            "lora.target_modules",
            r"must be text without NUL and half characters, not ['\udfff']",
        ),
        ({"\ud800": 1}, "config", r"must be text without NUL and half characters, not '\ud800'"),
        (
            {"experiment_name": "名" * 67},
            "experiment_name",
            f"use at most 200 bytes of UTF-8, which are 66 Chinese characters, not '{'名' * 67}'",
        ),
        (
            {"data": {"validation_rules": {"allow_empty": 7}}},
            "data.validation_rules.allow_empty",
            "must be true or false, not 7",
        ),
    ],
)
def test_a_mistake_is_said_in_plain_words(tree: dict[str, Any], key: str, message: str) -> None:
    assert found(tree) == {key: message}


def test_values_of_problems_fit_in_a_reply() -> None:
    (problem,) = find_problems({"training": {"device": "\ud800"}})
    assert problem.value == r"'\ud800'"


def test_a_long_name_fits_in_the_names_of_folders() -> None:
    assert found({"experiment_name": "名" * 66}) == {}


def test_a_good_config_has_no_problems() -> None:
    assert find_problems(ExperimentConfig().model_dump()) == []


def test_keys_that_contradict_each_other_name_the_key_to_change() -> None:
    tree = {
        "data": {"validation_rules": {"min_text_length": 9, "max_text_length": 3}},
        "training": {"early_stopping_patience": 2, "eval_strategy": "no"},
    }
    assert found(tree) == {
        "data.validation_rules.min_text_length": "min_text_length must not exceed max_text_length",
        "training.early_stopping_patience": "early_stopping_patience needs eval_strategy: steps or epoch",
    }


def test_a_contradiction_is_found_beside_a_mistake_in_the_same_section() -> None:
    tree = {"training": {"early_stopping_patience": 2, "eval_strategy": "no", "seed": -1}}
    assert set(found(tree)) == {"training.seed", "training.early_stopping_patience"}


def test_no_contradiction_is_made_up_from_a_key_that_is_wrong_itself() -> None:
    tree = {"data": {"validation_rules": {"min_text_length": 200_000, "max_text_length": "300000 or so"}}}
    assert set(found(tree)) == {"data.validation_rules.max_text_length"}


def test_a_value_that_expands_without_end_is_shown_short() -> None:
    bomb: list[Any] = ["x" * 1000]
    for _ in range(30):
        bomb = [bomb] * 9
    problems = find_problems({"model": {"name": bomb}, "lora": {"r": "9" * 100_000}, "extra": {"k": bomb}})
    assert len(problems) == 3
    assert len(json.dumps([problem.as_dict() for problem in problems])) < 3000
