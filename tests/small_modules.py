"""Small random models of families that have no fast path."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    DebertaConfig,
    DebertaV2Config,
    GPT2Config,
    ModernBertConfig,
    PretrainedConfig,
    XLNetConfig,
)

from small_models import SMALL, VOCABULARY, letter_tokenizer

MODULES: dict[str, PretrainedConfig] = {
    "deberta-v2": DebertaV2Config(**SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"], pooler_hidden_size=32),
    "deberta": DebertaConfig(**SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"], max_relative_positions=-1),
    "modernbert": ModernBertConfig(
        **SMALL,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
        global_attn_every_n_layers=2,
    ),
    "xlnet": XLNetConfig(
        vocab_size=len(VOCABULARY), d_model=32, n_layer=2, n_head=4, d_inner=64, pad_token_id=0, initializer_range=0.3
    ),
    "gpt2": GPT2Config(
        vocab_size=len(VOCABULARY),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        bos_token_id=2,
        eos_token_id=3,
        initializer_range=0.3,
    ),
}


def save_small_module(family: str, folder: Path, *, labels: int | None = None) -> Path:
    """A random encoder or decoder with a letter-by-letter tokenizer, in Transformers' layout.

    Args:
        labels: of a classifier, as one finds it after fine-tuning.
    """
    torch.manual_seed(0)
    config = copy.deepcopy(MODULES[family])
    if labels is None:
        AutoModel.from_config(config).save_pretrained(folder)
    else:
        config.num_labels = labels
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    letter_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
