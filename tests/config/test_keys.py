from __future__ import annotations

import pytest

from loramill.config.keys import full_key, iter_keys, nearest_key, set_key, takes_text, without_key


def test_every_key_has_a_description_for_help_and_forms() -> None:
    keys = dict(iter_keys())
    assert len(keys) > 40
    assert all(field.description and field.description.endswith(".") for field in keys.values())


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("training.learning_rat", "training.learning_rate"),
        ("lr_scheduler", "training.lr_scheduler_type"),
        ("lora.alpha", "lora.lora_alpha"),
        ("lora.learning_rate", "training.learning_rate"),
        ("trainig", "training"),
        ("data.validation_rules.allow_emtpy", "data.validation_rules.allow_empty"),
        ("training.epoch", "training.num_train_epochs"),
        ("training.lr", "training.learning_rate"),
        ("lora.rank", "lora.r"),
        ("lora.R", "lora.r"),
        ("LORA", "lora"),
        ("training.wd", None),
        ("system.gpu", None),
        ("zzz", None),
        ("", None),
    ],
)
def test_a_typo_has_a_nearest_key(typo: str, meant: str | None) -> None:
    assert nearest_key(typo) == meant


def test_a_leaf_that_stands_once_is_short_for_its_key() -> None:
    assert full_key("learning-rate") == "training.learning_rate"
    assert full_key("epochs") == "training.num_train_epochs"
    assert full_key("lora.r") == "lora.r"
    assert full_key("name") == "model.name"
    assert full_key("nonsense") == "nonsense"


@pytest.mark.parametrize(
    ("key", "text"), [("model.name", True), ("data.text_column", True), ("lora.r", False), ("?", False)]
)
def test_keys_know_whether_they_take_text(key: str, text: bool) -> None:
    assert takes_text(key) is text


def test_setting_a_key_makes_its_sections_and_changes_no_one_elses() -> None:
    shared = {"r": 8}
    tree = {"lora": shared}
    set_key(tree, "lora.r", 4)
    set_key(tree, "data.validation_rules.allow_empty", True)
    assert tree == {"lora": {"r": 4}, "data": {"validation_rules": {"allow_empty": True}}}
    assert shared == {"r": 8}


def test_a_tree_without_a_key() -> None:
    tree = {"lora": {"r": 8, "bias": "none"}, "model": 3}
    assert without_key(tree, "lora.r") == {"lora": {"bias": "none"}, "model": 3}
    assert without_key(tree, "lora") == {"model": 3}
    assert without_key(tree, "model.name") == without_key(tree, "nothing.at.all") == tree
