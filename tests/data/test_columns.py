"""Columns are found by their names first, and by what is in them second."""

from __future__ import annotations

import pyarrow as pa
import pytest

from data_rows import clean_texts
from loramill.data.columns import Columns, find_columns
from loramill.errors import MissingColumnError

TEXTS = clean_texts(40)
LABELS = [number % 2 for number in range(40)]


def find(named: dict[str, str] | None = None, **columns: list[object]) -> Columns:
    wanted = {"text": None, "text_pair": None, "label": None, **(named or {})}
    return find_columns(pa.table(columns), **wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "label"),
    [("text", "label"), ("sentence", "labels"), ("Review", "Sentiment"), ("content", "stars"), ("tweet", "target")],
)
def test_usual_names_are_known(text: str, label: str) -> None:
    assert find(**{"id": list(range(40)), label: LABELS, text: TEXTS}) == Columns(text, None, label)


@pytest.mark.parametrize(
    ("first", "second"), [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2")]
)
def test_usual_pairs_are_known(first: str, second: str) -> None:
    found = find(**{first: TEXTS, second: TEXTS[::-1], "label": LABELS, "idx": list(range(40))})
    assert found == Columns(first, second, "label")


def test_content_decides_when_names_do_not() -> None:
    found = find(
        a=[f"2026-01-{number % 28 + 1:02}" for number in range(40)],
        b=[f"user-{number}" for number in range(40)],
        c=TEXTS,
        d=["spam" if number % 3 else "ham" for number in range(40)],
    )
    assert found == Columns("c", None, "d")


def test_named_columns_are_taken_as_they_are() -> None:
    columns = {"text": TEXTS, "title": TEXTS[::-1], "label": LABELS, "grade": LABELS[::-1]}
    assert find({"text": "title", "label": "grade"}, **columns) == Columns("title", None, "grade")
    assert find({"text_pair": "title"}, **columns) == Columns("text", "title", "label")


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(MissingColumnError, match=r"'reviw'.*text, label") as caught:
        find({"text": "reviw"}, text=TEXTS, label=LABELS)
    assert "data.text_column" in caught.value.fix


def test_no_label_and_no_text_are_said() -> None:
    with pytest.raises(MissingColumnError, match="label"):
        find(text=TEXTS, note=TEXTS[::-1])
    with pytest.raises(MissingColumnError, match="text"):
        find(number=list(range(40)), label=LABELS)
