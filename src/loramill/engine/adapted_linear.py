"""A frozen linear layer with low-rank updates: ``y = x W^T + b + scale * (x A^T) B^T`` (LoRA, arXiv:2106.09685).

Written as one autograd node, because the frozen weight needs no gradient, the rows of a batch may belong to different
adapters, and the outputs of query, key and value stand side by side in one matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loramill.engine.linear import Linear


@dataclass(frozen=True)
class LowRankUpdate:
    """The update of one adapter to some rows of the output.

    Attributes:
        first, last: the rows of ``x`` that belong to the adapter, half-open.
        lora_a: A of all adapted sites that read this input, ``[sites * rank, in]``.
        lora_b: B of the same sites, ``[sites, out, rank]``.
        columns: first output column of every site.
        scale: ``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA.
        dropout_mask: ``[last - first, in]``, 0 or ``1 / (1 - p)``; ``None`` without dropout. One mask serves all
            sites of an input.
    """

    first: int
    last: int
    lora_a: Tensor
    lora_b: Tensor
    columns: tuple[int, ...]
    scale: float
    dropout_mask: Tensor | None = None


def adapted_linear(x: Tensor, linear: Linear, updates: Sequence[LowRankUpdate]) -> Tensor:
    """``x`` ``[rows, in]`` through a frozen layer with the updates of its rows' adapters, ``[rows, out]``."""
    parameters = [tensor for update in updates for tensor in (update.lora_a, update.lora_b)]
    result: Tensor = _AdaptedLinear.apply(x, linear, tuple(updates), *parameters)  # type: ignore[no-untyped-call]
    return result


class _AdaptedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: Linear, updates: tuple[LowRankUpdate, ...], *parameters: Tensor) -> Tensor:
        y = linear.apply_frozen(x)
        states = []
        for update, lora_a, lora_b in zip(updates, parameters[::2], parameters[1::2], strict=True):
            state = _dropped(x, update) @ lora_a.to(x.dtype).t()
            states.append(state)
            for output, rank_state, site_b in _sites(y, state, update, lora_b.to(x.dtype)):
                output.addmm_(rank_state, site_b.t(), alpha=update.scale)
        ctx.linear, ctx.updates = linear, updates
        ctx.save_for_backward(*([x] if updates else []), *parameters, *states)  # a frozen layer needs no input
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        (grad_y,) = grad_outputs
        grad_x = ctx.linear.input_gradient(grad_y) if ctx.needs_input_grad[0] else None
        if not ctx.updates:
            return grad_x, None, None
        x, *saved = ctx.saved_tensors
        count = len(ctx.updates)
        parameters, states = saved[: 2 * count], saved[2 * count :]
        grads: list[Tensor] = []
        for update, lora_a, lora_b, state in zip(ctx.updates, parameters[::2], parameters[1::2], states, strict=True):
            grad_state = torch.empty_like(state)
            grad_b = torch.empty_like(lora_b)
            sites = zip(
                _sites(grad_y, state, update, lora_b.to(x.dtype)),
                grad_state.split(lora_b.shape[2], 1),
                grad_b,
                strict=True,
            )
            for (grad_output, rank_state, site_b), grad_rank_state, grad_site_b in sites:
                torch.mm(grad_output, site_b, out=grad_rank_state)
                grad_site_b.copy_(grad_output.t() @ rank_state)
            grad_b.mul_(update.scale)
            grad_state.mul_(update.scale)
            grads += [(grad_state.t() @ _dropped(x, update)).to(lora_a.dtype), grad_b]
            if grad_x is not None:
                _add_input_gradient(grad_x[update.first : update.last], grad_state, lora_a.to(x.dtype), update)
        return grad_x, None, None, *grads


def _dropped(x: Tensor, update: LowRankUpdate) -> Tensor:
    rows = x[update.first : update.last]
    return rows if update.dropout_mask is None else rows * update.dropout_mask


def _sites(y: Tensor, state: Tensor, update: LowRankUpdate, lora_b: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For every adapted site: its output columns of the adapter's rows, its part of ``x A^T``, and its B."""
    rows = y[update.first : update.last]
    width = lora_b.shape[1]
    outputs = [rows[:, column : column + width] for column in update.columns]
    return list(zip(outputs, state.split(lora_b.shape[2], 1), lora_b, strict=True))


def _add_input_gradient(grad_x: Tensor, grad_state: Tensor, lora_a: Tensor, update: LowRankUpdate) -> None:
    if update.dropout_mask is None:
        grad_x.addmm_(grad_state, lora_a)
    else:
        grad_x.addcmul_(grad_state @ lora_a, update.dropout_mask)
