"""What is known of a model that runs through its own Transformers module, and when one has to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from loramill.engine.families import BERT, Architecture, read_architecture
from loramill.errors import ModelError

MODULE = replace(BERT, prefix="", layer="", sites={}, type_embeddings=None, head=(), automatic_targets=())
"""Of a base whose weights are within its own module (``engine.module_base``)."""
POSITIONS_AFTER_PADDING = (
    "roberta",
    "xlm-roberta",
    "camembert",
    "longformer",
    "mpnet",
    "esm",
    "ibert",
    "data2vec-text",
)
"""Families that count positions from the padding token on, as RoBERTa does."""
FLOAT32_ONLY = ("deberta",)
"""Families that fill scores of autocast's bfloat16 with the least number of float32, which does not fit."""
UNLIMITED_POSITIONS = 8192
"""Longest text of a family with relative positions only: as much as ``data.max_length`` allows."""


def lacks_fast_path(config: Mapping[str, object]) -> str | None:
    """Why a model has to run through its own Transformers module, in a sentence; ``None`` when it need not."""
    try:
        read_architecture(config)
    except ModelError as error:
        return error.message
    return None


def lacks_bfloat16(config: Mapping[str, object]) -> str | None:
    """Why a model has to compute in float32, in a few words; ``None`` when it need not."""
    model_type = config.get("model_type")
    return f"since {model_type} cannot in bfloat16" if model_type in FLOAT32_ONLY else None


def module_architecture(config: Mapping[str, object]) -> Architecture:
    """What is known of a model that runs through its own module: which it is, and how long its texts may be."""
    model_type = str(config.get("model_type", "unknown"))
    padding = config.get("pad_token_id")
    offset = 0
    if model_type in POSITIONS_AFTER_PADDING:
        offset = 1 + (padding if isinstance(padding, int) else 1)
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    known = positions if isinstance(positions, int) and positions > 0 else UNLIMITED_POSITIONS
    return Architecture(
        family=MODULE,
        model_type=model_type,
        hidden_size=0,
        layers=0,
        heads=0,
        intermediate_size=0,
        activation="none",
        norm_eps=0.0,
        max_positions=known - offset,
        position_offset=offset,
        initializer_range=0.0,
    )
