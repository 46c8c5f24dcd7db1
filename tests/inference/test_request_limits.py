from __future__ import annotations

import pytest

from loramill.errors import EmptyTextError, RequestInvalidError, TextTooLongError, TooManyTextsError
from loramill.inference.request_limits import RequestLimits, Texts, read_texts

LIMITS = RequestLimits(texts=3, text_characters=10)


def test_every_way_to_send_texts() -> None:
    assert read_texts("a", None, LIMITS) == Texts(["a"], None)
    assert read_texts(["a", "b"], None, LIMITS) == Texts(["a", "b"], None)
    assert read_texts("a", "b", LIMITS) == Texts(["a"], ["b"])
    assert read_texts(["a", "b"], ["c", "d"], LIMITS) == Texts(["a", "b"], ["c", "d"])
    assert read_texts([("a", "c"), ("b", "d")], None, LIMITS) == Texts(["a", "b"], ["c", "d"])


@pytest.mark.parametrize("text", ["", " \n\t", [], ["a", ""], ["a", "\u3000"], [("a", " ")]])
def test_empty_texts(text: str | list[str]) -> None:
    with pytest.raises(EmptyTextError):
        read_texts(text, None, LIMITS)


def test_the_position_of_the_text_at_fault_is_told() -> None:
    with pytest.raises(EmptyTextError, match="Text 1 is empty"):
        read_texts(["a", ""], None, LIMITS)
    with pytest.raises(TextTooLongError, match="Text 2 has 11 characters; 10 are allowed"):
        read_texts(["a", "b", "c" * 11], None, LIMITS)
    with pytest.raises(TextTooLongError, match="Text 0"):
        read_texts(["a", "b"], ["c" * 11, "d"], LIMITS)


def test_too_many_texts() -> None:
    with pytest.raises(TooManyTextsError, match="4 texts in one request; 3 are allowed"):
        read_texts(["a"] * 4, None, LIMITS)


@pytest.mark.parametrize(
    ("text", "text_pair"), [("a", ["b", "c"]), (["a", "b"], "c"), (["a", ("b", "c")], None), ([("a", "b")], "c")]
)
def test_pairs_for_some_texts_only(text: str | list[str], text_pair: str | list[str] | None) -> None:
    with pytest.raises(RequestInvalidError) as caught:
        read_texts(text, text_pair, LIMITS)
    assert caught.value.problems[0].key == "text_pair"


def test_half_a_character() -> None:
    with pytest.raises(RequestInvalidError, match="text 1 holds half a character"):
        read_texts(["a", "b\ud83d"], None, LIMITS)
    assert len(read_texts("b🙂", None, LIMITS)) == 1
