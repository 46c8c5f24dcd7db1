"""An analysis counts what a person would count."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from data_rows import MakeRows, clean_texts
from loramill.data.analyzer import DatasetAnalyzer, describe_lengths, describe_vocabulary
from loramill.data.languages import guess_languages, language_shares

SENTENCES = {
    "English": "This is the best film that I have seen in years, and not only for the music.",
    "German": "Das ist der beste Film, den ich seit Jahren gesehen habe, und nicht nur wegen der Musik.",
    "French": "C'est le meilleur film que j'ai vu depuis des années, et pas seulement pour la musique.",
    "Spanish": "Es la mejor película que he visto en años, y no sólo por la música que tiene.",
    "Italian": "È il miglior film che ho visto negli anni, e non solo per la musica della banda.",
    "Dutch": "Het is de beste film die ik in jaren heb gezien, en niet alleen voor de muziek.",
    "Chinese": "这是我多年来看过的最好的电影，不仅仅是因为音乐。iPhone也不错。",
    "Japanese": "これは私が何年も見た中で最高の映画です。音楽だけではありません。",
    "Korean": "이것은 내가 몇 년 동안 본 영화 중 최고입니다. 음악 때문만은 아닙니다.",
    "Russian or other Cyrillic": "Это лучший фильм, который я видел за много лет.",
    "Arabic": "هذا أفضل فيلم شاهدته منذ سنوات.",
    "no letters": "12345 !!! 👍",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_languages_of_sentences_are_guessed(language: str) -> None:
    assert guess_languages(pa.array([SENTENCES[language]], pa.large_string())).tolist() == [language]


def test_shares_of_languages_add_up() -> None:
    shares = language_shares(pa.array([*SENTENCES.values(), SENTENCES["English"]], pa.large_string()))
    assert next(iter(shares)) == "English"
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)


def test_a_split_is_described(make_rows: MakeRows) -> None:
    texts = clean_texts(100)
    texts[50], texts[60] = texts[0], texts[1].upper()
    rows = make_rows(texts, ["a"] * 60 + ["b"] * 40)
    split = DatasetAnalyzer(examples=2).analyze({"train": rows})["train"]
    assert (split.rows, split.distinct_texts, split.near_duplicates) == (100, 99, 1)
    assert (split.label_counts, split.imbalance_ratio, split.is_balanced) == ({"a": 60, "b": 40}, 1.5, False)
    lengths = [len(text) for text in texts]
    assert (split.characters.minimum, split.characters.maximum) == (min(lengths), max(lengths))
    assert split.words.mean == pytest.approx(np.mean([len(text.split()) for text in texts]), abs=0.05)
    assert split.tokens is None
    assert {label: len(some) for label, some in split.examples.items()} == {"a": 2, "b": 2}
    assert set(split.examples["b"]) <= set(texts[60:])
    json.dumps(split.as_dict(), allow_nan=False)


def test_tokens_are_counted_with_the_tokenizer_given(make_rows: MakeRows) -> None:
    analyzer = DatasetAnalyzer(count_tokens=lambda texts, pairs: np.asarray([len(text) for text in texts]))
    split = analyzer.analyze({"train": make_rows(["ab", "abcd"], ["x", "y"])})["train"]
    assert split.tokens is not None
    assert (split.tokens.minimum, split.tokens.mean, split.tokens.maximum) == (2, 3.0, 4)


def test_histograms_hold_every_row() -> None:
    lengths = describe_lengths(np.asarray([1] * 90 + [5] * 9 + [10_000]))
    assert sum(lengths.counts) == 100
    assert lengths.counts[-1] >= 1
    assert len(lengths.edges) == len(lengths.counts) + 1
    assert describe_lengths(np.asarray([], dtype=np.int64)).maximum == 0
    assert sum(describe_lengths(np.zeros(5, dtype=np.int64)).counts) == 5


def test_words_are_counted_without_case() -> None:
    vocabulary = describe_vocabulary(pa.array(["The cat, the CAT; a dog.", "好书 好 42"], pa.large_string()))
    assert dict(vocabulary.most_frequent) == {"the": 2, "cat": 2, "dog": 1, "好": 2, "书": 1, "42": 1}
    assert (vocabulary.words, vocabulary.distinct, vocabulary.once) == (10, 7, 4)


def test_regression_and_lists_of_labels_are_described_too(make_rows: MakeRows) -> None:
    texts = clean_texts(60)
    scores = DatasetAnalyzer().analyze({"train": make_rows(texts, [row / 7 for row in range(60)])})["train"]
    assert scores.examples.keys() == scores.label_counts.keys()
    several = DatasetAnalyzer().analyze({"train": make_rows(texts, [["a"], ["a", "b"]] * 30)})["train"]
    assert several.label_counts == {"a": 60, "b": 30}
