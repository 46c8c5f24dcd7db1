"""Words alone know the label of most rows, and never look at the fold that they judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.trainers import WordLevelTrainer

from loramill.data.naive_bayes import SMOOTHING, TokenFeatures, token_features, word_log_likelihoods
from loramill.data.samples import load_sample
from loramill.data.suspects import precision_at, rank_suspects


def flat(rows: list[list[int]]) -> TokenFeatures:
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return token_features(np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]), starts)


def test_tokens_and_pairs_count_once_a_row_and_no_pair_spans_two_rows() -> None:
    features = flat([[1, 2, 1, 2], [2, 1], []])
    by_row = [set(features.features[features.rows == row].tolist()) for row in range(3)]
    assert [len(found) for found in by_row] == [4, 3, 0]  # 1, 2, (1 2), (2 1); 2, 1, (2 1)
    assert by_row[1] < by_row[0]
    assert features.count == 4
    assert len(features.rows) == 7


def test_the_likelihoods_are_those_of_the_other_folds() -> None:
    features = flat([[5], [5], [6], [6, 5]])
    labels, folds = np.asarray([0, 0, 1, 1]), np.asarray([0, 1, 1, 0])
    scores = word_log_likelihoods(features, labels, folds, classes=2)
    # Fold 0 is judged by rows 1 and 2: class 0 saw token 5 once, class 1 token 6 once; there is one pair, unseen.
    seen, unseen = np.log((1 + SMOOTHING) / (1 + 3 * SMOOTHING)), np.log(SMOOTHING / (1 + 3 * SMOOTHING))
    assert scores[0].tolist() == [seen, unseen]
    assert np.allclose(scores[3], [seen + 2 * unseen, seen + 2 * unseen])


def test_a_row_s_own_label_does_not_matter() -> None:
    draw = np.random.default_rng(0)
    features = flat([draw.integers(0, 50, 8).tolist() for _ in range(40)])
    labels, folds = draw.integers(0, 3, 40), np.arange(40) % 4
    scores = word_log_likelihoods(features, labels, folds, classes=3)
    labels[folds == 2] = 0
    assert np.allclose(word_log_likelihoods(features, labels, folds, classes=3)[folds == 2], scores[folds == 2])


def test_no_rows_have_no_scores() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    features = token_features(nothing, np.zeros(1, dtype=np.int64))
    assert word_log_likelihoods(features, nothing, nothing, classes=2).shape == (0, 2)


def test_words_alone_find_a_third_of_the_flipped_labels_of_the_sample(tmp_path: Path) -> None:
    rows = load_sample("movie_reviews", tmp_path)["train"]
    draw = np.random.default_rng(0)
    labels = np.asarray(rows.labels)
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[draw.choice(len(labels), round(0.05 * len(labels)), replace=False)] = True
    tokenizer = Tokenizer(WordLevel(unk_token="?"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.train_from_iterator(rows.texts, WordLevelTrainer(special_tokens=["?"], show_progress=False))
    features = flat([encoding.ids for encoding in tokenizer.encode_batch_fast(rows.texts)])
    given = np.where(wrong, 1 - labels, labels)
    scores = word_log_likelihoods(features, given, draw.permutation(len(labels)) % 5, classes=2)
    chances = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
    assert np.mean(chances.argmax(axis=1) == labels) > 0.75
    assert precision_at(rank_suspects(chances, given).rows, wrong, int(wrong.sum())) > 0.3
