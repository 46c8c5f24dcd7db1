"""The forward pass: tokens to logits, for rows of many adapters at once. Training, sweeps and serving share it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from loramill.engine.attention import pooled_attention, self_attention
from loramill.engine.bank import AdapterBank, text_rows, token_rows
from loramill.engine.base import FrozenBase, LayerWeights
from loramill.engine.batching import Batch
from loramill.engine.dropout import DropoutStream
from loramill.engine.families import Activation, Site
from loramill.engine.linear import Linear
from loramill.engine.low_rank_adapter import Group, HeadWeights
from loramill.engine.module_base import ModuleBase
from loramill.engine.packed_updates import AdapterRows

NO_DROPOUT: Mapping[int, DropoutStream] = {}


class Bank(Protocol):
    """What the forward pass asks of the adapters beside a base."""

    base: FrozenBase

    def linear(
        self,
        layer: int,
        group: Group,
        sites: tuple[Site, ...],
        weights: Linear,
        x: Tensor,
        rows: AdapterRows,
        dropout: Mapping[int, DropoutStream],
    ) -> Tensor:
        """``x`` ``[rows, in]`` through a frozen layer with the updates of its rows' adapters, ``[rows, out]``.

        Args:
            sites: which outputs stand side by side in ``weights``.
            rows: whose each row of ``x`` is.
            dropout: adapter -> its masks, while training.
        """

    def head(self, adapter: int) -> list[HeadWeights]:
        """Every head layer of an adapter in order, the frozen ones included."""


def classify(bank: Bank, batch: Batch, dropout: Mapping[int, DropoutStream] = NO_DROPOUT) -> list[Tensor]:
    """Logits of every segment of the batch, each ``[rows, labels]`` in float32 (float64 for a float64 base).

    Args:
        dropout: adapter -> its masks, while training; nothing is dropped without.
    """
    if isinstance(bank, AdapterBank) and isinstance(bank.base, ModuleBase):
        return bank.base.module.classify(bank.adapters, batch, dropout, bank.base.architecture.model_type)
    pooled = encode(bank, batch, dropout)
    pooled = pooled.to(torch.promote_types(pooled.dtype, torch.float32))
    layers = bank.base.architecture.family.head
    shared = list(itertools.takewhile(lambda layer: layer.path in bank.base.head, layers))
    for layer in shared:
        pooled = _head_layer(pooled, HeadWeights(bank.base.head[layer.path], layer.activation))
    return _own_heads(bank, pooled, batch, len(shared))


def _own_heads(bank: Bank, pooled: Tensor, batch: Batch, first: int) -> list[Tensor]:
    """What the head layers from ``first`` on make of each segment; heads of the same shape in batched products."""
    heads = [bank.head(segment.adapter)[first:] for segment in batch.segments]
    kinds = {tuple(layer.linear.weight.shape for layer in head) for head in heads}
    counts = [segment.last_row - segment.first_row for segment in batch.segments]
    if len(heads) > 1 and len(kinds) == 1 and len(set(counts)) == 1:
        state = pooled.view(len(heads), counts[0], -1)
        for layers in zip(*heads, strict=True):
            weight = torch.stack([layer.linear.weight for layer in layers])
            bias = torch.stack([layer.linear.bias for layer in layers])
            state = _activate(torch.baddbmm(bias[:, None], state, weight.mT), layers[0].activation)
        return list(state.unbind())
    logits = []
    for head, state in zip(heads, pooled.split(counts), strict=True):
        for weights in head:
            state = _head_layer(state, weights)
        logits.append(state)
    return logits


def _head_layer(state: Tensor, weights: HeadWeights) -> Tensor:
    return _activate(F.linear(state, weights.linear.weight, weights.linear.bias), weights.activation)


def encode(bank: Bank, batch: Batch, dropout: Mapping[int, DropoutStream] = NO_DROPOUT) -> Tensor:
    """The last layer's state of each row's first token, ``[rows, hidden]``."""
    last = len(bank.base.layers) - 1
    return _EncoderPass(bank, batch, dropout).pooled_layer(last, states_before(bank, batch, last, dropout))


def states_before(bank: Bank, batch: Batch, layer: int, dropout: Mapping[int, DropoutStream] = NO_DROPOUT) -> Tensor:
    """What reaches a layer: from the batch's prefix on where it has one, else from the start.

    Returns:
        ``[tokens + filler, hidden]``.
    """
    forward = _EncoderPass(bank, batch, dropout)
    x, first = (batch.prefix.states, batch.prefix.layer) if batch.prefix else (embed(bank.base, batch), 0)
    x = F.pad(x, (0, 0, 0, batch.filler)) if batch.filler else x
    for index in range(first, layer):
        x = forward.layer(index, x)
    return x


def embed(base: FrozenBase, batch: Batch) -> Tensor:
    """Word, position and type embeddings of every token, ``[tokens, hidden]``."""
    weights = base.embeddings
    x = F.embedding(batch.token_ids, weights.word)
    x = x + F.embedding(batch.positions + base.architecture.position_offset, weights.position)
    if weights.token_type is not None:
        x = x + F.embedding(batch.type_ids, weights.token_type)
    x = _norm(x, weights.norm, base.architecture.norm_eps)
    return F.linear(x, weights.projection.weight, weights.projection.bias) if weights.projection else x


class _EncoderPass:
    """One pass of a batch through the layers."""

    def __init__(self, bank: Bank, batch: Batch, dropout: Mapping[int, DropoutStream]) -> None:
        self.bank, self.batch, self.dropout = bank, batch, dropout
        self.architecture = bank.base.architecture
        self.tokens, self.texts = token_rows(batch.segments), text_rows(batch.segments)

    def layer(self, index: int, x: Tensor) -> Tensor:
        """One layer for all tokens, ``[tokens + filler, hidden]`` to the same."""
        weights = self.bank.base.layers[index]
        qkv = self._linear(index, "qkv", ("query", "key", "value"), weights.qkv, x, self.tokens)
        context = self_attention(qkv, self.batch, self.architecture.heads)
        return self._after_attention(index, weights, context, x, self.tokens)

    def pooled_layer(self, index: int, x: Tensor) -> Tensor:
        """The last layer, for the first tokens only: the heads read no other. Exact; ``[rows, hidden]``."""
        base, first = self.bank.base, x[self.batch.first_tokens]
        query = self._linear(index, "qkv", ("query",), base.last_query, first, self.texts)
        key_value = self._linear(index, "qkv", ("key", "value"), base.last_key_value, x, self.tokens)
        context = pooled_attention(query, key_value, self.batch, self.architecture.heads)
        return self._after_attention(index, base.layers[index], context, first, self.texts)

    def _after_attention(
        self, index: int, weights: LayerWeights, context: Tensor, x: Tensor, rows: AdapterRows
    ) -> Tensor:
        eps = self.architecture.norm_eps
        attended = self._linear(
            index, "attention_output", ("attention_output",), weights.attention_output, context, rows
        )
        x = _norm(attended + x, weights.attention_norm, eps)
        inner = _activate(self._linear(index, "up", ("up",), weights.up, x, rows), self.architecture.activation)
        return _norm(self._linear(index, "down", ("down",), weights.down, inner, rows) + x, weights.output_norm, eps)

    def _linear(
        self,
        layer: int,
        group: Group,
        sites: tuple[Site, ...],
        weights: Linear,
        x: Tensor,
        rows: AdapterRows,
    ) -> Tensor:
        return self.bank.linear(layer, group, sites, weights, x, rows, self.dropout)


def _norm(x: Tensor, weights: Linear, eps: float) -> Tensor:
    return F.layer_norm(x, weights.weight.shape, weights.weight, weights.bias, eps)


def _activate(x: Tensor, activation: Activation) -> Tensor:
    match activation:
        case "gelu":
            return F.gelu(x)
        case "gelu_new":
            return F.gelu(x, approximate="tanh")
        case "relu":
            return F.relu(x)
        case "tanh":
            return torch.tanh(x)
        case "none":
            return x
