"""Texts to tokens with the base's own ``tokenizer.json``.

The ``tokenizers`` package is what Transformers' fast tokenizers run on; used directly it gives the same tokens, and
saves seconds of imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from loramill.base_models import VOCABULARY_FILES
from loramill.engine.token_rows import IntArray, TokenRows
from loramill.errors import ModelError

CHUNK_ROWS = 8192


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder, without truncation and padding.

    Raises:
        ModelError: when the folder has none that can be read.
    """
    file = folder / "tokenizer.json"
    tokenizer = _read_tokenizer(file) if file.is_file() else _convert_tokenizer(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], pairs: Sequence[str] | None, *, max_length: int) -> TokenRows:
    """Texts, or pairs of texts, as tokens with the model's special tokens.

    Rows longer than ``max_length`` tokens are cut as in Transformers (``longest_first``) and counted.
    """
    tokens: list[IntArray] = []
    types: list[IntArray] = []
    lengths = np.empty(len(texts), dtype=np.int64)
    truncated = 0
    tokenizer.enable_truncation(max_length)
    for first in range(0, len(texts), CHUNK_ROWS):
        chunk = slice(first, first + CHUNK_ROWS)
        rows = list(zip(texts[chunk], pairs[chunk], strict=True)) if pairs is not None else list(texts[chunk])
        for row, encoding in enumerate(tokenizer.encode_batch(rows), start=first):
            tokens.append(np.asarray(encoding.ids, dtype=np.int64))
            types.append(np.asarray(encoding.type_ids, dtype=np.int64))
            lengths[row] = len(encoding.ids)
            truncated += bool(encoding.overflowing)
    tokenizer.no_truncation()
    empty = np.empty(0, dtype=np.int64)
    return TokenRows(
        token_ids=np.concatenate(tokens or [empty]),
        type_ids=np.concatenate(types or [empty]),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        truncated=truncated,
    )


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str], pairs: Sequence[str] | None = None) -> IntArray:
    """Tokens of every row before truncation, ``[rows]``."""
    rows = list(zip(texts, pairs, strict=True)) if pairs is not None else list(texts)
    counts: list[int] = []
    for first in range(0, len(rows), CHUNK_ROWS):
        counts.extend(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(rows[first : first + CHUNK_ROWS]))
    return np.asarray(counts, dtype=np.int64)


def _read_tokenizer(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises plain Exception
        raise ModelError(f"{file} cannot be read: {error}") from error


def _convert_tokenizer(folder: Path) -> Tokenizer:
    """Older checkpoints carry only a vocabulary; Transformers knows how to turn it into a fast tokenizer.

    Without one it would make up an empty tokenizer, so it is not asked then.
    """
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise ModelError(
            f"{folder} has no tokenizer: neither tokenizer.json nor {', '.join(VOCABULARY_FILES)}.",
            fix="Save it beside the model with AutoTokenizer.from_pretrained(...).save_pretrained(folder).",
        )
    from transformers import AutoTokenizer

    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False).backend_tokenizer
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise ModelError(f"{folder} has no tokenizer that can be read: {error}") from error
    return tokenizer
