"""What the service says is known by its pattern, and said in the reader's language."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import Any

import pytest

from loramill.config.problems import find_problems
from loramill.config.schema import ExperimentConfig
from loramill.experiments.compare import PairTest, _reason
from loramill.inference.languages import language_warning
from loramill.ui.service_words import HOLE, SENTENCES, WORDS, read_patterns, translate

SOURCE = Path(__file__).parents[2] / "src" / "loramill"
CHINESE = re.compile("[\u4e00-\u9fff]")
ENGLISH = re.compile(r"[A-Za-z]{2,} [A-Za-z]{2,} [A-Za-z]{2,}")
PUT_TOGETHER = ("must be {said_allowed}", "No winner: ", "{leader} beats", "The text seems")
"""Patterns whose parts are in several places; tests below have the service say them."""

WRONG: list[dict[str, Any]] = [
    {"experiment_name": "/", "model": {"name": "\0"}},
    {"experiment_name": "\u540d" * 67},
    {"model": {"num_labels": 0, "name": ""}},
    {"lora": {"r": "many", "lora_alpha": 0, "lora_dropout": 1, "bias": "all", "use_rslora": 7}},
    {"lora": {"target_modules": [], "layers_to_transform": []}},
    {"lora": {"target_modules": 3, "layers_to_transform": ["a"], "use_dora": True, "init_lora_weights": "pissa"}},
    {"lora": {"use_dora": True, "init_lora_weights": "pissa"}},
    {"data": {"validation_rules": {"min_text_length": 9, "max_text_length": 2}, "max_length": 9000}},
    {"training": {"device": "gpu", "bf16": "maybe", "report_to": ["comet"], "seed": 2**40, "learning_rate": "x"}},
    {"training": {"early_stopping_patience": 2, "eval_strategy": "no", "num_train_epochs": float("inf")}},
    {"training": 3, "data": {"eval_fraction": 1, "train_samples": 1.5}},
]


@functools.cache
def sentences_of_source() -> list[str]:
    """Every text in the source with holes as ``{}``."""
    found = []
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(HOLE.sub("{}", node.value))
    return [text.replace("'{}'", "{}") for text in found]


@pytest.mark.parametrize("english", read_patterns("zh-TW", WORDS) | read_patterns("zh-TW", SENTENCES))
def test_the_service_still_says_so(english: str) -> None:
    if english.startswith(PUT_TOGETHER) or english == "{said_one} or {said_other}":
        return
    said = HOLE.sub("{}", english).removesuffix(", not {}").replace("'{}'", "{}")
    assert any(said in text for text in sentences_of_source())


@pytest.mark.parametrize("english", read_patterns("zh-TW", SENTENCES))
def test_no_pattern_is_taken_for_another(english: str) -> None:
    holes = {name: f"'{name}-1'" for name in HOLE.findall(english)}
    translation = read_patterns("zh-TW", SENTENCES)[english]
    assert HOLE.findall(translation) == [] or set(HOLE.findall(translation)) <= holes.keys()
    assert translate(english.format(**holes), "zh-TW") == translation.format(**holes)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_config_is_said_in_chinese(wrong: dict[str, Any]) -> None:
    problems = find_problems(wrong)
    assert problems
    for problem in problems:
        said = translate(problem.message, "zh-TW")
        assert CHINESE.search(said), problem.message
        assert not ENGLISH.search(said), said


def test_every_key_of_the_config_is_a_problem_in_chinese_when_it_is_a_mapping() -> None:
    for section in ("model", "lora", "data", "training", "system"):
        for key in ExperimentConfig.model_fields[section].annotation.model_fields:  # type: ignore[union-attr]
            for problem in find_problems({section: {key: {"a": 1}}}):
                assert CHINESE.search(translate(problem.message, "zh-TW")), problem.message


@pytest.mark.parametrize(
    "obstacle", ["a and b saved no predictions.", "they were evaluated on different data (a on 1, b on 2)."]
)
def test_runs_that_cannot_be_compared(obstacle: str) -> None:
    """As ``judge`` puts them together."""
    assert not ENGLISH.search(translate(f"No winner: {obstacle}", "zh-TW"))


@pytest.mark.parametrize("won", [True, False])
@pytest.mark.parametrize("score", ["accuracy", "loss"])
def test_verdicts(won: bool, score: str) -> None:
    pair = PairTest("best of 3", "other", 400, 0.0275, 0.0075, 0.05, 0.013, 0.0192, 0.0192)
    said = translate(_reason([pair], score, won=won), "zh-TW")
    assert "best of 3" in said
    assert not ENGLISH.search(said.replace("best of 3", "")), said


def test_a_text_in_another_script() -> None:
    warning = language_warning("English", "這是一段中文")
    assert warning
    assert CHINESE.match(translate(warning, "zh-TW"))


def test_a_failed_job_is_told_without_the_advice() -> None:
    message = "The base model 'a or b' is not in the local cache, and the hub is away. Check the name and the network."
    assert translate(message, "zh-TW") == "本機快取沒有基礎模型 'a or b'，Hub 無法連線。"
    assert translate(message, "en") == message
    message = "The data set glue/sst2 is not in the local cache, and the hub is away. Check data.dataset_name."
    assert translate(message, "zh-TW") == "本機快取沒有資料集 glue/sst2，也無法連線到 Hub。"


def test_what_nobody_knows_stays() -> None:
    for sentence in ("Something new happened.", "{name}", "", "a. b"):
        assert translate(sentence, "zh-TW") == sentence
