"""What one request may hold; checked before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from loramill.errors import EmptyTextError, Problem, RequestInvalidError, TextTooLongError, TooManyTextsError

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""What JSON can say and UTF-8 cannot."""

TextItem = str | tuple[str, str]
"""A text, or a pair of texts."""


@dataclass(frozen=True)
class RequestLimits:
    """Largest sizes that are accepted."""

    texts: int = 1000
    text_characters: int = 50_000
    body_bytes: int = 16 << 20


@dataclass(frozen=True)
class Texts:
    """The texts of a request; ``seconds`` holds the second text of each pair, or nothing at all."""

    firsts: list[str]
    seconds: list[str] | None

    def __len__(self) -> int:
        return len(self.firsts)


def read_texts(
    text: TextItem | Sequence[TextItem], text_pair: str | Sequence[str] | None, limits: RequestLimits
) -> Texts:
    """Every way to send texts, as one.

    Args:
        text: one text, or several; each of them alone or as a pair.
        text_pair: the second text, or all of them; instead of pairs in ``text``.

    Raises:
        TooManyTextsError, EmptyTextError, TextTooLongError: a limit is not kept; says which text.
        RequestInvalidError: some texts are pairs and others are not; or a text cannot be written in UTF-8.
    """
    items = [text] if isinstance(text, str) else list(text)
    if not items:
        raise EmptyTextError("The list of texts is empty.", fix="Send at least one text.")
    if len(items) > limits.texts:
        raise TooManyTextsError(
            f"{len(items)} texts in one request; {limits.texts} are allowed.", fix="Send several requests."
        )
    firsts = [item if isinstance(item, str) else item[0] for item in items]
    seconds = [item[1] for item in items if not isinstance(item, str)]
    if text_pair is not None:
        seconds += [text_pair] if isinstance(text_pair, str) else list(text_pair)
    if seconds and len(seconds) != len(firsts):
        message = f"{len(seconds)} second texts for {len(firsts)} texts: give each text one, or none"
        raise RequestInvalidError([Problem("text_pair", None, message)])
    for position, value in enumerate(firsts + seconds):
        _check_text(value, position % len(firsts), limits)
    return Texts(firsts, seconds or None)


def _check_text(value: str, position: int, limits: RequestLimits) -> None:
    if not value or value.isspace():
        raise EmptyTextError(f"Text {position} is empty.", fix="Send a text with at least one character.")
    if len(value) > limits.text_characters:
        raise TextTooLongError(
            f"Text {position} has {len(value)} characters; {limits.text_characters} are allowed.",
            fix="Send the part that matters: models read only their first tokens.",
        )
    if not value.isascii() and LONE_SURROGATE.search(value):
        raise RequestInvalidError([Problem("text", None, f"text {position} holds half a character (a lone surrogate)")])
