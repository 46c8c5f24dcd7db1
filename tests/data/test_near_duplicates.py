"""Near copies: found where they are, not found where they are not."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from data_rows import MakeRows, clean_texts
from loramill.data.near_duplicates import THRESHOLD, find_near_copies, signatures, word_hashes


def jaccard(first: str, second: str) -> float:
    """The definition, written another way: words and neighbouring words."""
    sets = []
    for text in (first, second):
        words = text.lower().rstrip(".").split()
        sets.append({*words, *itertools.pairwise(words)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def altered(text: str, number: int, random: np.random.RandomState) -> str:
    words = text.split()
    for place in random.permutation(len(words))[:number]:
        words[place] = f"other{random.randint(10**6)}"
    return " ".join(words)


@pytest.mark.parametrize(("at_least", "recall"), [(0.7, 0.93), (0.8, 0.99)])
def test_near_copies_are_found_as_often_as_promised(make_rows: MakeRows, at_least: float, recall: float) -> None:
    random = np.random.RandomState(5)
    texts = clean_texts(1500)
    copies = [altered(text, random.randint(1, 3), random) for text in texts]
    expected = {row for row in range(1500) if jaccard(texts[row], copies[row]) >= at_least}
    (found,) = find_near_copies({"train": make_rows([*texts, *copies])})
    pairs = dict(zip(found.rows.tolist(), found.originals.tolist(), strict=True))
    assert all(pairs[row] == row - 1500 for row in pairs)
    assert all(jaccard(texts[row - 1500], copies[row - 1500]) >= THRESHOLD - 1e-9 for row in pairs)
    assert len(expected) > 150
    assert sum(row + 1500 in pairs for row in expected) / len(expected) >= recall


def test_case_punctuation_and_spaces_do_not_make_a_difference(make_rows: MakeRows) -> None:
    rows = make_rows(["The end of it all, really.", "Nothing like the other one here.", "the END  of it all - really!"])
    (found,) = find_near_copies({"train": rows})
    assert (found.rows.tolist(), found.originals.tolist()) == ([2], [0])


def test_chinese_is_compared_by_characters(make_rows: MakeRows) -> None:
    texts = [
        "这本书的内容非常丰富，值得推荐给大家阅读",
        "物流太慢了，等了整整两个星期才收到货",
        "这本书的内容十分丰富，值得推荐给大家阅读！",
    ]
    (found,) = find_near_copies({"train": make_rows(texts, ["a", "b", "a"])})
    assert found.rows.tolist() == [2]


def test_the_same_words_in_another_order_are_another_text(make_rows: MakeRows) -> None:
    texts = ["good but not great at all", "great but not good at all", "not at all good but great"]
    assert find_near_copies({"train": make_rows(texts)}) == []


def test_exact_copies_and_very_short_texts_are_not_near_copies(make_rows: MakeRows) -> None:
    assert find_near_copies({"train": make_rows(["a b c d e f"] * 5 + ["very good"] + ["Very good!"])}) == []


def test_copies_across_splits_point_to_training(make_rows: MakeRows) -> None:
    texts = clean_texts(50)
    evaluation = make_rows([texts[3].upper(), *clean_texts(20, seed=9)], name="validation")
    other = make_rows([evaluation.texts[5].as_py().upper()], name="test")
    found = find_near_copies({"validation": evaluation, "train": make_rows(texts), "test": other})
    assert [(copy.split, copy.original_split, copy.rows.tolist(), copy.originals.tolist()) for copy in found] == [
        ("validation", "train", [0], [3])
    ]


def test_many_copies_of_one_text_stay_cheap(make_rows: MakeRows) -> None:
    base = [*clean_texts(1)[0].removesuffix(".").split(), "and", "so", "on", "for", "ever"]
    texts = [" ".join([*base, f"number{number}"]) for number in range(3000)]
    (found,) = find_near_copies({"train": make_rows(texts)})
    assert len(found.rows) == 2999


def test_empty_and_missing_texts_are_no_trouble(make_rows: MakeRows) -> None:
    assert find_near_copies({"train": make_rows(["", None, "   ", "!!!"])}) == []


def test_words_belong_to_their_text() -> None:
    words, edges = word_hashes(pa.array(["One two.", "", "... two", None, "好书 one"], pa.large_string()))
    assert edges.tolist() == [0, 2, 2, 3, 3, 6]
    assert words[1] == words[2]
    assert words[0] == words[5]


def test_a_signature_estimates_the_similarity_of_word_pairs() -> None:
    text = " ".join(f"word{number}" for number in range(100))
    near = " ".join(f"word{number}" for number in range(20, 120))
    signed, long_enough = signatures(pa.array([text, near, "a b"], pa.large_string()))
    assert long_enough.tolist() == [True, True, False]
    assert abs((signed[0] == signed[1]).mean() - 79 / 121) < 0.2
