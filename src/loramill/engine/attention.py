"""Self-attention over a flat batch: rows attend within their bucket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from loramill.engine.batching import Batch, Bucket, Places
from loramill.engine.row_attention import FirstTokenAttention, RowAttention


def self_attention(qkv: Tensor, batch: Batch, heads: int) -> Tensor:
    """Every token attends to the tokens of its row.

    Args:
        qkv: ``[tokens + filler, 3 * hidden]``, query, key and value side by side.

    Returns:
        ``[tokens + filler, hidden]``.
    """
    if batch.attention == "flat":
        query, key, value = qkv.unflatten(1, (3, heads, -1)).unbind(1)
        return _flat_attention(query, key, value, batch.row_starts, batch.longest, batch)
    placed = _to_places(qkv, batch)
    attend = _padded_attention if batch.attention == "padded" else _row_attention
    return _from_places(attend(placed, batch.buckets, heads), batch)


def _flat_attention(
    query: Tensor, key: Tensor, value: Tensor, query_starts: Tensor, longest_query: int, batch: Batch
) -> Tensor:
    """Rows attend as they lie, without padding; query, key and value are ``[tokens, heads, size]``.

    The kernel behind ``torch.nn.attention.varlen``, whose import takes seconds: it brings the compiler along.
    """
    context: Tensor = torch.ops.aten._flash_attention_forward(
        query, key, value, query_starts, batch.row_starts, longest_query, batch.longest, 0.0, False, False
    )[0]
    return context.flatten(1)


def _flat_first_tokens(query: Tensor, key_value: Tensor, batch: Batch, heads: int) -> Tensor:
    """One query a row; those of filler are zero."""
    key, value = key_value.unflatten(1, (2, heads, -1)).unbind(1)
    count = len(batch.row_starts) - 1
    each = torch.arange(count + 1, dtype=torch.int32, device=query.device)
    padded = F.pad(query, (0, 0, 0, count - batch.rows)).unflatten(1, (heads, -1))
    return _flat_attention(padded, key, value, each, 1, batch)[: batch.rows]


def _row_attention(qkv: Tensor, buckets: Sequence[Bucket], heads: int) -> Tensor:
    result: Tensor = RowAttention.apply(qkv, buckets, heads)  # type: ignore[no-untyped-call]
    return result


def _padded_attention(qkv: Tensor, buckets: Sequence[Bucket], heads: int) -> Tensor:
    hidden = qkv.shape[1] // 3
    contexts = []
    for bucket, part in _split(qkv, buckets):
        query, key, value = part.view(bucket.rows, bucket.width, 3, heads, hidden // heads).permute(2, 0, 3, 1, 4)
        contexts.append(_attend(query, key, value, bucket).transpose(1, 2).reshape(-1, hidden))
    return torch.cat(contexts)


def pooled_attention(query: Tensor, key_value: Tensor, batch: Batch, heads: int) -> Tensor:
    """Only the first token of each row attends: all that the last layer of a classifier needs.

    Args:
        query: ``[rows, hidden]``, of the first tokens.
        key_value: ``[tokens + filler, 2 * hidden]``, key and value of all tokens side by side.

    Returns:
        ``[rows, hidden]``.
    """
    if batch.attention == "flat":
        return _flat_first_tokens(query, key_value, batch, heads)
    places = batch.places
    ordered = query[places.order] if places else query
    key_value = _to_places(key_value, batch)
    attend = _padded_first_tokens if batch.attention == "padded" else _first_tokens
    context = attend(ordered, key_value, batch.buckets, heads)
    return context[torch.argsort(places.order)] if places else context


def _first_tokens(query: Tensor, key_value: Tensor, buckets: Sequence[Bucket], heads: int) -> Tensor:
    result: Tensor = FirstTokenAttention.apply(query, key_value, buckets, heads)  # type: ignore[no-untyped-call]
    return result


def _padded_first_tokens(query: Tensor, key_value: Tensor, buckets: Sequence[Bucket], heads: int) -> Tensor:
    hidden = query.shape[1]
    contexts, row = [], 0
    for bucket, part in _split(key_value, buckets):
        key, value = part.view(bucket.rows, bucket.width, 2, heads, hidden // heads).permute(2, 0, 3, 1, 4)
        own = query[row : row + bucket.rows].view(bucket.rows, heads, 1, hidden // heads)
        contexts.append(_attend(own, key, value, bucket).reshape(bucket.rows, hidden))
        row += bucket.rows
    return torch.cat(contexts)


def _split(places: Tensor, buckets: Sequence[Bucket]) -> list[tuple[Bucket, Tensor]]:
    return list(zip(buckets, places.split([bucket.rows * bucket.width for bucket in buckets]), strict=True))


def _attend(query: Tensor, key: Tensor, value: Tensor, bucket: Bucket) -> Tensor:
    """Scaled dot-product attention, ``[rows, heads, queries, size]``; padding is never attended to."""
    mask = None if bucket.padding is None else ~bucket.padding[:, None, None, :]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def _to_places(tokens: Tensor, batch: Batch) -> Tensor:
    if batch.places is None:
        return tokens
    result: Tensor = _ToPlaces.apply(tokens, batch.places, batch.tokens)  # type: ignore[no-untyped-call]
    return result


def _from_places(values: Tensor, batch: Batch) -> Tensor:
    if batch.places is None:
        return values
    result: Tensor = _FromPlaces.apply(values, batch.places)  # type: ignore[no-untyped-call]
    return result


class _ToPlaces(torch.autograd.Function):
    """Tokens to places. What flows back to padding is zero, so the gradient is a plain selection as well."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, places: Places, count: int) -> Tensor:
        ctx.places, ctx.count = places, count
        return tokens.index_select(0, places.gather)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        grad = grad_outputs[0].index_select(0, ctx.places.scatter)
        grad[ctx.count :] = 0  # nothing reads filler
        return grad, None, None


class _FromPlaces(torch.autograd.Function):
    """Places to tokens: what stands at padding is dropped, and nothing flows back to it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Places) -> Tensor:
        ctx.places = places
        return values.index_select(0, places.scatter)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0].index_select(0, ctx.places.gather).index_fill_(0, ctx.places.padding, 0), None
