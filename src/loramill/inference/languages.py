"""Which language a model and a text are in, cheaply enough to say it in every reply.

Scripts tell most of it: an English tokenizer turns Chinese into unknown tokens, and the other way round, so the answer
is noise. Within one script the guess is only told, and nobody is warned.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from loramill.data.languages import SMALL_WORDS

LATIN = "Latin"
MULTILINGUAL = "multilingual"
UNKNOWN = "unknown"
SCRIPT_LANGUAGES = {
    "CJK": "Chinese",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "HANGUL": "Korean",
    "CYRILLIC": "Russian",
    "ARABIC": "Arabic",
    "HEBREW": "Hebrew",
    "GREEK": "Greek",
    "THAI": "Thai",
    "DEVANAGARI": "Hindi",
    "LATIN": LATIN,
}
"""First word of a character's Unicode name -> the language that is most written in this script."""

NAMED_LANGUAGES = {
    "chinese": "Chinese",
    "japanese": "Japanese",
    "korean": "Korean",
    "german": "German",
    "french": "French",
    "camembert": "French",
    "spanish": "Spanish",
    "italian": "Italian",
    "dutch": "Dutch",
    "portuguese": "Portuguese",
    "arabic": "Arabic",
    "multilingual": MULTILINGUAL,
    "xlm-r": MULTILINGUAL,
}
"""Part of a base model's name -> its language."""

LOOKED_AT = 400
"""Characters of a text that decide."""

LATIN_WEIGHT = 1 / 3
"""A Latin letter says less than a Chinese character: words of names and brands stand in Chinese sentences."""

VOCABULARY_SHARE = 0.05
"""Share of the vocabulary that makes a script one of the model's: English BERT has 2% Chinese characters."""

_WORD_LANGUAGES = {
    word: tuple(language for language, words in SMALL_WORDS.items() if word in words.split("|"))
    for word in "|".join(SMALL_WORDS.values()).split("|")
}
_WORDS = re.compile(r"[^\W\d_]+")


def model_language(base_name: str, vocabulary: Iterable[str]) -> str:
    """The language of a base model: as its name says, or else by the scripts of its vocabulary."""
    plain = base_name.lower()
    for part, named in NAMED_LANGUAGES.items():
        if part in plain:
            return named
    scripts = Counter(language for token in vocabulary if (language := _script_language(token)))
    total = sum(scripts.values())
    other = [language for language, count in scripts.items() if language != LATIN and count > VOCABULARY_SHARE * total]
    if "Japanese" in other:
        other = [language for language in other if language != "Chinese"]
    if len(other) > 1:
        return MULTILINGUAL
    return other[0] if other else "English"


def text_language(text: str) -> str:
    """A guess that is good for sentences; ``unknown`` for what has no letters or no word that tells."""
    script = _main_script(text[:LOOKED_AT])
    if script != LATIN:
        return script or UNKNOWN
    found = Counter(
        language for word in _WORDS.findall(text[:LOOKED_AT].lower()) for language in _WORD_LANGUAGES.get(word, ())
    )
    return found.most_common(1)[0][0] if found else UNKNOWN


def language_warning(model: str, text: str) -> str | None:
    """What to tell somebody whose text is in a script that the model's tokenizer does not know."""
    script = _main_script(text[:LOOKED_AT])
    expected = model if model in SCRIPT_LANGUAGES.values() else LATIN
    if model == MULTILINGUAL or script in (None, expected) or {script, expected} == {"Chinese", "Japanese"}:
        return None
    found = f"written in {'the Latin script' if script == LATIN else script}"
    return f"The text seems to be {found}, but the model is for {model}: do not rely on the answer."


def _main_script(text: str) -> str | None:
    if text.isascii():
        return LATIN if any(character.isalpha() for character in text) else None
    counts = Counter(language for character in text if (language := _character_language(character)))
    if counts.get("Japanese"):  # Japanese mixes kana with Chinese characters
        counts["Japanese"] += counts.pop("Chinese", 0)
    return max(counts, key=lambda language: counts[language] * (LATIN_WEIGHT if language == LATIN else 1), default=None)


def _script_language(token: str) -> str | None:
    return next((language for character in token if (language := _character_language(character))), None)


@lru_cache(maxsize=65_536)
def _character_language(character: str) -> str | None:
    return SCRIPT_LANGUAGES.get(unicodedata.name(character, "").partition(" ")[0]) if character.isalpha() else None
