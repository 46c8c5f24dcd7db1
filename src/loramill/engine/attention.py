"""Self-attention over a flat batch: rows attend within their bucket, so that padding stays small and local."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from loramill.engine.batching import Batch, Bucket


def self_attention(qkv: Tensor, batch: Batch, heads: int) -> Tensor:
    """Every token attends to the tokens of its row.

    Args:
        qkv: ``[tokens, 3 * hidden]``, query, key and value side by side.

    Returns:
        ``[tokens, hidden]``.
    """
    hidden = qkv.shape[1] // 3
    places = _ToPlaces.apply(qkv, batch.gather, batch.scatter)  # type: ignore[no-untyped-call]
    contexts = []
    for bucket, part in _split(places, batch):
        query, key, value = part.view(bucket.rows, bucket.width, 3, heads, hidden // heads).permute(2, 0, 3, 1, 4)
        contexts.append(_attend(query, key, value, bucket).transpose(1, 2).reshape(-1, hidden))
    result: Tensor = _FromPlaces.apply(torch.cat(contexts), batch.gather, batch.scatter)  # type: ignore[no-untyped-call]
    return result


def pooled_attention(query: Tensor, key_value: Tensor, batch: Batch, heads: int) -> Tensor:
    """Only the first token of each row attends: all that the last layer of a classifier needs.

    Args:
        query: ``[rows, hidden]``, of the first tokens.
        key_value: ``[tokens, 2 * hidden]``, key and value of all tokens side by side.

    Returns:
        ``[rows, hidden]``.
    """
    rows, hidden = query.shape
    places = _ToPlaces.apply(key_value, batch.gather, batch.scatter)  # type: ignore[no-untyped-call]
    ordered = query[batch.bucket_order].view(rows, heads, 1, hidden // heads)
    contexts, row = [], 0
    for bucket, part in _split(places, batch):
        key, value = part.view(bucket.rows, bucket.width, 2, heads, hidden // heads).permute(2, 0, 3, 1, 4)
        contexts.append(_attend(ordered[row : row + bucket.rows], key, value, bucket).reshape(bucket.rows, hidden))
        row += bucket.rows
    inverse = torch.empty_like(batch.bucket_order)
    inverse[batch.bucket_order] = torch.arange(rows, device=inverse.device)
    return torch.cat(contexts)[inverse]


def _split(places: Tensor, batch: Batch) -> list[tuple[Bucket, Tensor]]:
    sizes = [bucket.rows * bucket.width for bucket in batch.buckets]
    return list(zip(batch.buckets, places.split(sizes), strict=True))


def _attend(query: Tensor, key: Tensor, value: Tensor, bucket: Bucket) -> Tensor:
    """Scaled dot-product attention, ``[rows, heads, queries, size]``; padding is never attended to."""
    mask = None if bucket.padding is None else ~bucket.padding[:, None, None, :]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class _ToPlaces(torch.autograd.Function):
    """Tokens to places. What flows back to padding is zero, so the gradient is a plain selection as well."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, gather: Tensor, scatter: Tensor) -> Tensor:
        ctx.save_for_backward(scatter)
        return tokens.index_select(0, gather)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (scatter,) = ctx.saved_tensors
        return grad_outputs[0].index_select(0, scatter), None, None


class _FromPlaces(torch.autograd.Function):
    """Places back to tokens; padding is dropped."""

    @staticmethod
    def forward(ctx: Any, places: Tensor, gather: Tensor, scatter: Tensor) -> Tensor:
        ctx.save_for_backward(scatter)
        ctx.places = len(gather)
        return places.index_select(0, scatter)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (scatter,) = ctx.saved_tensors
        grad_places = grad_outputs[0].new_zeros(ctx.places, grad_outputs[0].shape[1])
        grad_places[scatter] = grad_outputs[0]
        return grad_places, None, None
