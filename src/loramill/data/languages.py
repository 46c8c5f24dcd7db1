"""Which languages texts are written in: by script, and for the Latin script by its most frequent small words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

SCRIPTS = {
    "Japanese": r"[\p{Hiragana}\p{Katakana}]",
    "Chinese": r"\p{Han}",
    "Korean": r"\p{Hangul}",
    "Russian or other Cyrillic": r"\p{Cyrillic}",
    "Arabic": r"\p{Arabic}",
    "Hebrew": r"\p{Hebrew}",
    "Greek": r"\p{Greek}",
    "Thai": r"\p{Thai}",
    "Hindi or other Devanagari": r"\p{Devanagari}",
}
LATIN = r"\p{Latin}"
SMALL_WORDS = {
    "English": "the|and|of|to|is|in|it|that|this|for|with|was|but|not|you",
    "German": "der|die|und|das|ist|nicht|ein|eine|mit|auf|ich|sehr|von|zu|den",
    "French": "le|les|et|est|une|des|pas|que|dans|pour|du|qui|sur|avec|très",
    "Spanish": "el|los|las|que|y|es|una|por|con|muy|del|para|pero|está|como",
    "Portuguese": "o|os|que|não|uma|com|para|muito|do|da|em|foi|mas|são|você",
    "Italian": "il|che|di|non|una|per|con|sono|è|della|molto|gli|anche|ma|più",
    "Dutch": "de|het|een|en|van|niet|dat|op|voor|met|zijn|ook|maar|heel|er",
}
OTHER_LATIN, NO_LETTERS = "other Latin", "no letters"
KANA_WEIGHT = 3.0
"""Japanese mixes kana with Han characters: a third of kana makes a text Japanese, not Chinese."""


def language_shares(texts: pa.LargeStringArray) -> dict[str, float]:
    """Language -> share of the texts, most frequent first."""
    names = guess_languages(texts)
    found, counts = np.unique(names, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {str(found[index]): round(float(counts[index]) / max(1, len(names)), 4) for index in order}


def guess_languages(texts: pa.LargeStringArray) -> NDArray[np.str_]:
    """The language of each text ``[rows]``: a guess that is good for sentences, and poor for single words."""
    letters = np.stack([_count(texts, script) for script in SCRIPTS.values()] + [_count(texts, LATIN) / 3.0])
    letters[0] *= KANA_WEIGHT
    names: NDArray[np.str_] = np.asarray([*SCRIPTS, OTHER_LATIN])[letters.argmax(axis=0)].astype("<U32")
    names[letters.max(axis=0) == 0] = NO_LETTERS
    latin = np.flatnonzero(names == OTHER_LATIN)
    if len(latin):
        names[latin] = _latin_language(texts.take(latin))
    return names


def _latin_language(texts: pa.LargeStringArray) -> NDArray[np.str_]:
    """The language with the most small words; none at all leaves it open."""
    hits = np.stack([_count(texts, rf"(?i)(^|[^\pL])({words})($|[^\pL])") for words in SMALL_WORDS.values()])
    names: NDArray[np.str_] = np.asarray(list(SMALL_WORDS))[hits.argmax(axis=0)].astype("<U32")
    names[hits.max(axis=0) == 0] = OTHER_LATIN
    return names


def _count(texts: pa.LargeStringArray, pattern: str) -> NDArray[np.float64]:
    import pyarrow.compute as pc

    counts: NDArray[np.float64] = pc.count_substring_regex(texts, pattern).to_numpy(zero_copy_only=False).astype(float)
    return counts
