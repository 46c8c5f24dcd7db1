"""What the service says, in the reader's language.

The service speaks English, to scripts too, and each of its sentences is made from a pattern with holes. A file for each
other language has those patterns with their translations; a sentence that no pattern fits stays as it is.
"""

from __future__ import annotations

import functools
import json
import re

from loramill.ui.texts import FOLDER, current_language

HOLE = re.compile(r"\{(\w+)\}")
SPOKEN = "said_"
"""Holes of such a name hold words of the service as well, which are translated in their turn."""

WORDS, SENTENCES = "words", "sentences"
Patterns = dict[str, str]


def in_own_words(sentence: str) -> str:
    """A sentence of the service, translated where its pattern is known."""
    return translate(sentence, current_language())


def translate(sentence: str, language: str) -> str:
    """Of a failed job's message the first sentence alone: what follows is advice, which the page has itself."""
    first, end, advice = sentence.partition(". ")
    known = _translated(f"{first}.", language, SENTENCES) if end and advice[:1].isupper() else None
    return known or _translated(sentence, language, SENTENCES) or sentence


def read_patterns(language: str, kind: str) -> Patterns:
    """English pattern -> translation, in the order in which they are tried; nothing for English."""
    file = FOLDER / f"service.{language}.json"
    if not file.exists():
        return {}
    patterns: dict[str, Patterns] = json.loads(file.read_text(encoding="utf-8"))
    return patterns[kind]


def _translated(text: str, language: str, kind: str) -> str | None:
    for pattern, translation in _compiled(language, kind):
        if found := pattern.fullmatch(text):
            holes = {name: _held(name, held, language) for name, held in found.groupdict().items()}
            return translation.format(**holes)
    return None


def _held(name: str, text: str, language: str) -> str:
    return (_translated(text, language, WORDS) if name.startswith(SPOKEN) else None) or text


@functools.cache
def _compiled(language: str, kind: str) -> list[tuple[re.Pattern[str], str]]:
    return [(_expression(english), translation) for english, translation in read_patterns(language, kind).items()]


def _expression(english: str) -> re.Pattern[str]:
    parts = HOLE.split(english)  # literal, name of a hole, literal, ...
    pieces = (re.escape(part) if place % 2 == 0 else f"(?P<{part}>.+?)" for place, part in enumerate(parts))
    return re.compile("".join(pieces), re.DOTALL)
