"""Small random models of every family, built by Transformers, as any user's checkpoint would be."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DistilBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from loramill.base_models import locate_base_model
from loramill.engine.base import FrozenBase, load_base
from loramill.engine.low_rank_adapter import Adapter, AdapterSpec
from loramill.engine.token_rows import TokenRows

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.ascii_lowercase]
SMALL = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**SMALL),
    "roberta": RobertaConfig(**SMALL, pad_token_id=0, type_vocab_size=2),
    "distilbert": DistilBertConfig(
        vocab_size=len(VOCABULARY),
        dim=32,
        n_layers=3,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    ),
    "albert": AlbertConfig(**SMALL, embedding_size=16),
}


def save_small_model(family: str, folder: Path, **changes: object) -> Path:
    """A random encoder with a letter-by-letter tokenizer, in Transformers' layout.

    Args:
        changes: of its config.
    """
    torch.manual_seed(0)
    config = CONFIGS[family]
    model = AutoModel.from_config(type(config)(**{**config.to_dict(), **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    letter_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def save_tokenizer_config(folder: Path) -> None:
    """What ``AutoTokenizer`` needs beside ``tokenizer.json``."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letter_tokenizer(), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tokenizer.save_pretrained(folder)


def letter_tokenizer() -> Tokenizer:
    """Every letter that stands alone is a token."""
    tokenizer = Tokenizer(WordLevel({token: index for index, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def small_base(folder: Path, dtype: torch.dtype = torch.float32) -> FrozenBase:
    files = locate_base_model(str(folder))
    return load_base(files.config, files.weights, dtype=dtype, device=torch.device("cpu"))


def random_adapter(base: FrozenBase, **changes: object) -> Adapter:
    """An adapter with every value drawn: with B = 0 an update would be invisible."""
    spec = AdapterSpec(rank=4, alpha=8, sites=("query", "value"), dropout=0.0, labels=3, seed=1)
    dtype = torch.promote_types(base.dtype, torch.float32)
    adapter = Adapter(base, AdapterSpec(**{**vars(spec), **changes}), dtype=dtype)
    drawn = torch.empty(adapter.values.shape).normal_(0, 0.2, generator=torch.Generator().manual_seed(7))
    adapter.values.copy_(drawn)
    return adapter


def padded_inputs(rows: TokenRows, model_type: str) -> dict[str, Tensor]:
    """The same rows as a Transformers model takes them."""
    width = int(rows.lengths.max())
    ids, types, mask = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    for row, (first, length) in enumerate(zip(rows.starts, rows.lengths, strict=False)):
        ids[row, :length] = torch.from_numpy(rows.token_ids[first : first + length])
        types[row, :length] = torch.from_numpy(rows.type_ids[first : first + length])
        mask[row, :length] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    return inputs if model_type == "distilbert" else {**inputs, "token_type_ids": types}
