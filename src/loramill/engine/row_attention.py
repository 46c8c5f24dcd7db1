"""Attention of rows of similar length that lie next to each other: the CPU's way.

PyTorch's fused CPU attention is slow on short rows, and five times slower in bfloat16 than in float32. Here the small
score matrices are plain batched products in float32, one bucket of rows at a time. Scores are kept for the backward
pass where rows are short; long rows go through the fused kernel, which keeps none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from loramill.engine.batching import FUSED_WIDTH, Bucket

_fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_fused_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_NO_BIAS = torch.empty(1, 1, 1)


class RowAttention(torch.autograd.Function):
    """``softmax(Q K^T / sqrt(size)) V`` within each row, ``[places, 3 * hidden]`` to ``[places, hidden]``."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, buckets: Sequence[Bucket], heads: int) -> Tensor:
        context = qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)
        saved: list[Tensor] = []
        for bucket, place in _places(buckets):
            flat = _copy(_by_head(qkv[place], bucket.rows, 3, heads))
            own = _by_head(context[place], bucket.rows, 1, heads)[0]
            saved += _attend_fused(flat, own) if bucket.width >= FUSED_WIDTH else _attend(flat, own, bucket)
        ctx.buckets, ctx.heads = buckets, heads
        ctx.save_for_backward(*saved)
        return context

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grad_outputs
        grad_qkv = grad.new_empty(grad.shape[0], 3 * grad.shape[1])
        saved = iter(ctx.saved_tensors)
        for bucket, place in _places(ctx.buckets):
            own = _copy(_by_head(grad[place], bucket.rows, 1, ctx.heads))[0]
            target = _by_head(grad_qkv[place], bucket.rows, 3, ctx.heads)
            backward = _backward_fused if bucket.width >= FUSED_WIDTH else _backward
            target.copy_(backward(own, saved))
        return grad_qkv, None, None


class FirstTokenAttention(torch.autograd.Function):
    """The same for one query in each row: ``[rows, hidden]`` and ``[places, 2 * hidden]`` to ``[rows, hidden]``."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key_value: Tensor, buckets: Sequence[Bucket], heads: int) -> Tensor:
        context = torch.empty_like(query)
        saved: list[Tensor] = []
        for bucket, place, rows in _places_and_rows(buckets):
            flat_query = _copy(_by_head(query[rows], bucket.rows, 1, heads))[0]
            flat = _copy(_by_head(key_value[place], bucket.rows, 2, heads))
            weights, own = _weigh(flat_query, flat[0], flat[1], bucket)
            _by_head(context[rows], bucket.rows, 1, heads)[0].copy_(own)
            saved += [flat_query, flat, weights]
        ctx.buckets, ctx.heads = buckets, heads
        ctx.save_for_backward(*saved)
        return context

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (grad,) = grad_outputs
        places = sum(bucket.rows * bucket.width for bucket in ctx.buckets)
        grad_query, grad_key_value = torch.empty_like(grad), grad.new_empty(places, 2 * grad.shape[1])
        saved = iter(ctx.saved_tensors)
        for bucket, place, rows in _places_and_rows(ctx.buckets):
            query, (key, value), weights = next(saved), next(saved), next(saved)
            own = _copy(_by_head(grad[rows], bucket.rows, 1, ctx.heads))[0]
            found_query = torch.empty_like(query)
            found = query.new_empty(2, *key.shape)
            _unweigh(own, query, key, value, weights, (found_query, found[0], found[1]))
            _by_head(grad_query[rows], bucket.rows, 1, ctx.heads)[0].copy_(found_query)
            _by_head(grad_key_value[place], bucket.rows, 2, ctx.heads).copy_(found)
        return grad_query, grad_key_value, None, None


def _places(buckets: Sequence[Bucket]) -> Iterator[tuple[Bucket, slice]]:
    """Every bucket with its places."""
    first = 0
    for bucket in buckets:
        last = first + bucket.rows * bucket.width
        yield bucket, slice(first, last)
        first = last


def _places_and_rows(buckets: Sequence[Bucket]) -> Iterator[tuple[Bucket, slice, slice]]:
    """Every bucket with its places and its rows."""
    row = 0
    for bucket, place in _places(buckets):
        yield bucket, place, slice(row, row + bucket.rows)
        row += bucket.rows


def _by_head(places: Tensor, rows: int, parts: int, heads: int) -> Tensor:
    """``[places, parts * hidden]`` as a view ``[parts, rows, heads, width, size]``."""
    size = places.shape[1] // (parts * heads)
    return places.view(rows, -1, parts, heads, size).permute(2, 0, 3, 1, 4)


def _copy(view: Tensor) -> Tensor:
    """A contiguous copy in float32 or finer."""
    exact = torch.promote_types(view.dtype, torch.float32)
    return torch.empty(view.shape, dtype=exact).copy_(view)


def _attend(flat: Tensor, target: Tensor, bucket: Bucket) -> list[Tensor]:
    weights, context = _weigh(flat[0], flat[1], flat[2], bucket)
    target.copy_(context)
    return [flat, weights]


def _weigh(query: Tensor, key: Tensor, value: Tensor, bucket: Bucket) -> tuple[Tensor, Tensor]:
    """The weights ``[rows * heads, queries, width]``, and their sums of the values ``[rows, heads, queries, size]``."""
    rows, heads, width, size = key.shape
    bias = bucket.attention_bias(heads)
    scores = torch.baddbmm(
        _NO_BIAS.to(key.dtype) if bias is None else bias.to(key.dtype),
        query.view(rows * heads, -1, size),
        key.view(rows * heads, width, size).transpose(1, 2),
        beta=0 if bias is None else 1,
        alpha=1 / math.sqrt(size),
    )
    weights = torch.softmax(scores, -1)
    return weights, torch.bmm(weights, value.view(rows * heads, width, size)).view(rows, heads, -1, size)


def _backward(grad: Tensor, saved: Iterator[Tensor]) -> Tensor:
    """Gradients of query, key and value, ``[3, rows, heads, width, size]``."""
    flat, weights = next(saved), next(saved)
    found = torch.empty_like(flat)
    _unweigh(grad, flat[0], flat[1], flat[2], weights, found.unbind(0))
    return found


def _unweigh(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, weights: Tensor, found: tuple[Tensor, ...]
) -> None:
    """Write the gradients of query, key and value to ``found``; tensors are ``[rows, heads, tokens, size]``."""
    size, batch = grad.shape[3], len(weights)
    own, q, k, v = (tensor.view(batch, -1, size) for tensor in (grad, query, key, value))
    grad_q, grad_k, grad_v = (tensor.view(batch, -1, size) for tensor in found)
    grad_weights = torch.bmm(own, v.transpose(1, 2))
    grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
    unused, scale = _NO_BIAS.to(q.dtype), 1 / math.sqrt(size)
    torch.baddbmm(unused, grad_scores, k, beta=0, alpha=scale, out=grad_q)
    torch.baddbmm(unused, grad_scores.transpose(1, 2), q, beta=0, alpha=scale, out=grad_k)
    torch.bmm(weights.transpose(1, 2), own, out=grad_v)


def _attend_fused(flat: Tensor, target: Tensor) -> list[Tensor]:
    context, log_sums = _fused(*flat.unbind(0))
    target.copy_(context)
    return [flat, context, log_sums]


def _backward_fused(grad: Tensor, saved: Iterator[Tensor]) -> Tensor:
    flat, context, log_sums = next(saved), next(saved), next(saved)
    return torch.stack(_fused_backward(grad, *flat.unbind(0), context, log_sums, 0.0, False))
