"""A frozen linear layer with the updates of many adapters in a few large products, for devices where each call counts.

``adapted_linear`` takes one adapter after another, which keeps a CPU's cores busy with small products. A GPU would wait
for the next call most of the time. Here all A lie one below the other and all B side by side: one product gives each
row its state under every adapter, a mask keeps the row's own, and the rest of the step is as wide. With n adapters of
rank r that is the work of one adapter of rank n * r, little beside the frozen layer's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loramill.engine.adapted_linear import LowRankUpdate
from loramill.engine.linear import Linear


@dataclass(frozen=True)
class AdapterRows:
    """Which rows of a tensor belong to which adapter.

    Attributes:
        spans: (adapter, first, last), half-open, in order and without gaps.
        masks: of the updates to these rows, since every layer asks for the same again.
    """

    spans: tuple[tuple[int, int, int], ...]
    masks: dict[object, Tensor] = field(default_factory=dict)


def packed_linear(x: Tensor, linear: Linear, updates: Sequence[LowRankUpdate], rows: AdapterRows) -> Tensor:
    """What ``adapted_linear`` computes: ``x`` ``[rows, in]`` through a frozen layer with updates, ``[rows, out]``."""
    kinds: dict[tuple[int, ...], list[LowRankUpdate]] = {}
    for update in updates:
        kinds.setdefault(update.columns, []).append(update)
    packs = [_pack(tuple(kind), rows, x) for kind in kinds.values()]
    parameters = [tensor for pack in packs for name in ("lora_a", "lora_b") for tensor in pack.tensors(name)]
    result: Tensor = _PackedLinear.apply(x, linear, packs, *parameters)  # type: ignore[no-untyped-call]
    return result


@dataclass(frozen=True)
class _Columns:
    """How updates of one kind (the same sites adapted) lie in the wide tensors, adapter by adapter.

    Attributes:
        owner: int64 ``[columns]``, whose each column of the states is.
        scale: ``[columns]``, that of its owner.
        of_site: int64 ``[ranks]`` for each site, the columns that its B takes.
        back: int64, from the gradient of all B ``[sites, out, ranks]`` to the adapters' own, one after the other.
    """

    owner: Tensor
    scale: Tensor
    of_site: tuple[Tensor, ...]
    back: Tensor


@dataclass(frozen=True)
class _Pack:
    """Updates of one kind.

    Attributes:
        mask: ``[rows, columns]``, an adapter's scale where its rows meet its columns, else 0.
    """

    updates: tuple[LowRankUpdate, ...]
    columns: _Columns
    mask: Tensor
    dropout_mask: Tensor | None

    def tensors(self, name: str) -> list[Tensor]:
        return [getattr(update, name) for update in self.updates]

    def dropped(self, x: Tensor) -> Tensor:
        return x if self.dropout_mask is None else x * self.dropout_mask


def _pack(updates: tuple[LowRankUpdate, ...], rows: AdapterRows, x: Tensor) -> _Pack:
    sites, out, _ = updates[0].lora_b.shape
    scales = tuple((update.lora_b.shape[2], update.scale) for update in updates)
    columns = _columns(sites, out, scales, x.dtype, x.device)
    key = (sites, scales, tuple(update.first for update in updates), len(x))
    if key not in rows.masks:
        rows.masks[key] = _mask(updates, columns, x)
    return _Pack(updates, columns, rows.masks[key], _dropout_mask(updates, x))


@lru_cache(maxsize=16)
def _columns(
    sites: int, out: int, scales: tuple[tuple[int, float], ...], dtype: torch.dtype, device: torch.device
) -> _Columns:
    """
    Args:
        scales: rank and scale of each adapter.
    """
    ranks = np.array([rank for rank, _ in scales])
    starts = np.concatenate([[0], np.cumsum(sites * ranks)[:-1]])
    of_site = [
        np.concatenate([first + site * rank + np.arange(rank) for first, rank in zip(starts, ranks, strict=True)])
        for site in range(sites)
    ]
    gradient = np.arange(sites * out * ranks.sum()).reshape(sites, out, -1)
    back = np.concatenate([part.ravel() for part in np.split(gradient, np.cumsum(ranks)[:-1], axis=2)])
    owner = np.repeat(np.arange(len(scales)), sites * ranks)
    scale = torch.tensor([scale for _, scale in scales], dtype=dtype)[owner]  # Apple's devices know no float64
    columns, gradients, *indices = (torch.from_numpy(array).to(device) for array in (owner, back, *of_site))
    return _Columns(columns, scale.to(device), tuple(indices), gradients)


def _mask(updates: Sequence[LowRankUpdate], columns: _Columns, x: Tensor) -> Tensor:
    owner = np.full(len(x), -1)
    for place, update in enumerate(updates):
        owner[update.first : update.last] = place
    return (torch.from_numpy(owner).to(x.device)[:, None] == columns.owner) * columns.scale


def _dropout_mask(updates: Sequence[LowRankUpdate], x: Tensor) -> Tensor | None:
    """The masks of all rows; rows that nobody drops from keep their values."""
    if all(update.dropout_mask is None for update in updates):
        return None
    whole = torch.ones_like(x)
    for update in updates:
        if update.dropout_mask is not None:
            whole[update.first : update.last] = update.dropout_mask
    return whole


class _PackedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: Linear, packs: Sequence[_Pack], *parameters: Tensor) -> Tensor:
        y = linear.apply_frozen(x)
        saved = []
        for pack in packs:
            lora_a = torch.cat(pack.tensors("lora_a")).to(x.dtype)
            lora_b = torch.cat(pack.tensors("lora_b"), 2).to(x.dtype)
            states = (pack.dropped(x) @ lora_a.t()).mul_(pack.mask)
            for output, columns, site_b in _sites(y, pack, lora_b):
                output.addmm_(states[:, columns], site_b.t())
            saved += [lora_a, lora_b, states]
        ctx.linear, ctx.packs = linear, packs
        ctx.save_for_backward(*([x] if packs else []), *saved)  # a frozen layer needs no input
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        (grad_y,) = grad_outputs
        grad_x = ctx.linear.input_gradient(grad_y) if ctx.needs_input_grad[0] else None
        grads: list[Tensor] = []
        if ctx.packs:
            x, *saved = ctx.saved_tensors
            for place, pack in enumerate(ctx.packs):
                grads += _pack_gradients(grad_y, grad_x, x, pack, *saved[3 * place : 3 * place + 3])
        return grad_x, None, None, *grads


def _pack_gradients(
    grad_y: Tensor, grad_x: Tensor | None, x: Tensor, pack: _Pack, lora_a: Tensor, lora_b: Tensor, states: Tensor
) -> list[Tensor]:
    """Gradients of every A, then of every B; adds its part to ``grad_x``."""
    grad_states, grad_b = torch.empty_like(states), torch.empty_like(lora_b)
    for (grad_output, columns, site_b), grad_site_b in zip(_sites(grad_y, pack, lora_b), grad_b, strict=True):
        grad_states.index_copy_(1, columns, grad_output @ site_b)
        torch.mm(grad_output.t(), states[:, columns], out=grad_site_b)
    grad_states.mul_(pack.mask)
    exact = pack.updates[0].lora_a.dtype
    own_a = (grad_states.t() @ pack.dropped(x)).to(exact).split([len(update.lora_a) for update in pack.updates])
    flat_b = grad_b.view(-1)[pack.columns.back].to(exact).split([update.lora_b.numel() for update in pack.updates])
    own_b = [grad.view(update.lora_b.shape) for grad, update in zip(flat_b, pack.updates, strict=True)]
    if grad_x is not None:
        if pack.dropout_mask is None:
            grad_x.addmm_(grad_states, lora_a)
        else:
            grad_x.addcmul_(grad_states @ lora_a, pack.dropout_mask)
    return [*own_a, *own_b]


def _sites(y: Tensor, pack: _Pack, lora_b: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For every adapted site: its columns of the output, its columns of the states, and all B ``[out, ranks]``."""
    outputs = [y[:, column : column + lora_b.shape[1]] for column in pack.updates[0].columns]
    return list(zip(outputs, pack.columns.of_site, lora_b, strict=True))
