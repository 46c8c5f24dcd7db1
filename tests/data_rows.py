"""What the tests of data share: rows without a fault, to plant faults into."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from loramill.data.rows import SplitRows
from loramill.data.sources import SourceData

MakeRows = Callable[..., SplitRows]
Load = Callable[..., SourceData]


def clean_texts(number: int, seed: int = 1) -> list[str]:
    """Distinct sentences of made-up words, of which no two are alike."""
    random = np.random.RandomState(seed)
    syllables = ["ba", "do", "fe", "gu", "ki", "lo", "ma", "ne", "pi", "ro", "su", "ta", "ve", "wi", "zo"]
    words = ["".join(parts) for parts in itertools.product(syllables, repeat=3)]
    sentences = random.randint(0, len(words), (number, 16)).tolist()
    lengths = random.randint(8, 17, number).tolist()
    return [
        " ".join(words[word] for word in sentence[:length]).capitalize() + "."
        for sentence, length in zip(sentences, lengths, strict=True)
    ]


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    """One JSON value a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
