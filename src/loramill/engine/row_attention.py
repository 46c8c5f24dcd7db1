"""Attention of rows of equal length that lie next to each other: the CPU's way.

PyTorch's fused CPU attention is slow on short rows, and five times slower in bfloat16 than in float32. Here the small
score matrices are plain batched products in float32, one bucket of equal rows at a time; nothing is padded or masked.
Scores are kept for the backward pass where rows are short; long rows go through the fused kernel, which keeps none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from loramill.engine.batching import Bucket

FUSED_WIDTH = 160
"""From this row length in tokens on, scores take more memory than the fused kernel costs time."""

_fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_fused_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class RowAttention(torch.autograd.Function):
    """``softmax(Q K^T / sqrt(size)) V`` within each row, ``[tokens, 3 * hidden]`` to ``[tokens, hidden]``."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, buckets: Sequence[Bucket], heads: int) -> Tensor:
        exact = torch.promote_types(qkv.dtype, torch.float32)
        tokens, hidden = qkv.shape[0], qkv.shape[1] // 3
        context = torch.empty(tokens, hidden, dtype=exact)
        saved: list[Tensor] = []
        for bucket, place in _places(buckets):
            rows = _by_head(qkv[place].to(exact), bucket, heads)
            target = context[place].view(bucket.rows, bucket.width, heads, -1).transpose(1, 2)
            saved += _attend_fused(rows, target) if bucket.width >= FUSED_WIDTH else _attend_plain(rows, target)
        ctx.buckets, ctx.heads, ctx.dtype = buckets, heads, qkv.dtype
        ctx.save_for_backward(*saved)
        return context.to(qkv.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grad_outputs
        grad = grad.to(torch.promote_types(grad.dtype, torch.float32))
        tokens, hidden = grad.shape
        grad_qkv = torch.empty(tokens, 3 * hidden, dtype=grad.dtype)
        saved = iter(ctx.saved_tensors)
        for bucket, place in _places(ctx.buckets):
            own = grad[place].view(bucket.rows, bucket.width, ctx.heads, -1).transpose(1, 2)
            target = grad_qkv[place].view(bucket.rows, bucket.width, 3, ctx.heads, -1).permute(2, 0, 3, 1, 4)
            backward = _backward_fused if bucket.width >= FUSED_WIDTH else _backward_plain
            backward(own, target, saved)
        return grad_qkv.to(ctx.dtype), None, None


def _places(buckets: Sequence[Bucket]) -> Iterator[tuple[Bucket, slice]]:
    """Every bucket with its tokens."""
    first = 0
    for bucket in buckets:
        last = first + bucket.rows * bucket.width
        yield bucket, slice(first, last)
        first = last


def _by_head(qkv: Tensor, bucket: Bucket, heads: int) -> Tensor:
    """``[tokens, 3 * hidden]`` as ``[3, rows, heads, width, size]``."""
    return qkv.view(bucket.rows, bucket.width, 3, heads, -1).permute(2, 0, 3, 1, 4)


def _attend_plain(rows: Tensor, target: Tensor) -> list[Tensor]:
    _, count, heads, width, size = rows.shape
    flat = rows.reshape(3, count * heads, width, size)
    query, key, value = flat.unbind(0)
    nothing = torch.empty(1, 1, 1, dtype=rows.dtype)
    scores = torch.baddbmm(nothing, query, key.transpose(1, 2), beta=0, alpha=1 / math.sqrt(size))
    weights = torch.softmax(scores, -1)
    target.copy_(torch.bmm(weights, value).view(count, heads, width, size))
    return [flat, weights]


def _backward_plain(grad: Tensor, target: Tensor, saved: Iterator[Tensor]) -> None:
    flat, weights = next(saved), next(saved)
    query, key, value = flat.unbind(0)
    shape = grad.shape
    own = grad.reshape(-1, shape[2], shape[3])
    grad_weights = torch.bmm(own, value.transpose(1, 2))
    grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
    grad_scores.mul_(1 / math.sqrt(shape[3]))
    target[0].copy_(torch.bmm(grad_scores, key).view(shape))
    target[1].copy_(torch.bmm(grad_scores.transpose(1, 2), query).view(shape))
    target[2].copy_(torch.bmm(weights.transpose(1, 2), own).view(shape))


def _attend_fused(rows: Tensor, target: Tensor) -> list[Tensor]:
    query, key, value = rows.unbind(0)
    context, log_sums = _fused(query, key, value)
    target.copy_(context)
    return [rows, context, log_sums]


def _backward_fused(grad: Tensor, target: Tensor, saved: Iterator[Tensor]) -> None:
    rows, context, log_sums = next(saved), next(saved), next(saved)
    query, key, value = rows.unbind(0)
    for part, value_grad in zip(
        target, _fused_backward(grad, query, key, value, context, log_sums, 0.0, False), strict=True
    ):
        part.copy_(value_grad)
