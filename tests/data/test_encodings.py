"""Encodings are told apart by what their bytes look like."""

from __future__ import annotations

from pathlib import Path

import pytest

from loramill.data.encodings import Utf8Counter, encoding_of_head, legacy_encoding
from loramill.errors import UnreadableDataError


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(encoding: str) -> None:
    assert encoding_of_head(Path("rows.csv"), "text,label\n".encode(encoding)) == encoding


@pytest.mark.parametrize("head", [b"", b"a", b"text,label\n", "好看\n".encode(), "café\n".encode("latin-1")])
def test_plain_text_has_to_be_looked_at_as_a_whole(head: bytes) -> None:
    assert encoding_of_head(Path("rows.csv"), head) is None


def test_control_characters_all_over_are_no_text() -> None:
    with pytest.raises(UnreadableDataError):
        encoding_of_head(Path("rows.csv"), bytes(range(32)) * 10)


def test_valid_and_invalid_bytes_are_counted_across_blocks() -> None:
    text = "é好😀".encode()
    counter = Utf8Counter()
    for start in range(0, len(text), 2):
        counter.add(text[start : start + 2])
    assert (counter.valid, counter.invalid) == (3, 0)
    counter.add(b"\xff\xfe.")
    assert (counter.valid, counter.invalid) == (3, 2)
    assert counter.is_probable


def test_lonely_high_bytes_are_accents() -> None:
    assert legacy_encoding("Le café noir, l'été à Paris".encode("cp1252")) == "cp1252"
    assert legacy_encoding("Очень хороший фильм, всем советую".encode("cp1251")) == "cp1251"
    assert (
        legacy_encoding("这本书很好看，推荐给大家阅读。质量太差了，物流也很慢，我很失望。".encode("gb18030"))
        == "gb18030"
    )
