"""Adapters packed for serving: in the compute type, without gradients, two small products an adapter.

Training keeps A and B apart and in float32 (``bank``). Here the scale is folded into B, and the B of all sites that
read one input stand in one matrix, with zeros where a site has no adapter: one product updates query, key and value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from loramill.engine.bank import GROUPS, Adapter, AdapterSpec, DropoutStream, Group, HeadWeights, LowRankPair
from loramill.engine.base import FrozenBase, LayerWeights, Linear
from loramill.engine.families import Site


@dataclass(frozen=True)
class PackedPair:
    """The update ``x @ down @ up`` of the adapted sites of one input group.

    Attributes:
        down: A transposed, ``[in, sites * rank]``.
        up: ``[sites * rank, out]``, where ``out`` covers all sites of the group side by side; the scale is in it.
        sites: the adapted ones, in order.
    """

    down: Tensor
    up: Tensor
    sites: tuple[Site, ...]

    def part(self, group: Group, sites: tuple[Site, ...]) -> PackedPair | None:
        """The update of neighbouring sites of the group only; ``None`` when none of them is adapted."""
        every = GROUPS[group]
        if sites == every:
            return self
        adapted = [position for position, site in enumerate(self.sites) if site in sites]
        if not adapted:
            return None
        rank, width = len(self.up) // len(self.sites), self.up.shape[1] // len(every)
        ranks = slice(adapted[0] * rank, (adapted[-1] + 1) * rank)
        first = every.index(sites[0])
        columns = slice(first * width, (first + len(sites)) * width)
        return PackedPair(self.down[:, ranks], self.up[ranks, columns], tuple(self.sites[i] for i in adapted))


@dataclass(frozen=True)
class PackedAdapter:
    """One adapter that only answers.

    Attributes:
        pairs: (layer path, input group) -> its update.
        head: every head layer in order, the frozen ones included; never below float32.
        nbytes: memory of its own; frozen head layers belong to the base.
    """

    spec: AdapterSpec
    pairs: Mapping[tuple[str, Group], PackedPair]
    head: tuple[HeadWeights, ...]
    nbytes: int


@torch.no_grad()
def pack_adapter(base: FrozenBase, adapter: Adapter) -> PackedAdapter:
    """A copy of an adapter for serving, in the base's compute type."""
    pairs = {
        (path, group): _pack_pair(adapter.spec, group, pair, base.dtype)
        for (path, group), pair in adapter.pairs.items()
    }
    exact = torch.promote_types(base.dtype, torch.float32)
    trained = {path: _copy(linear, exact) for path, linear in adapter.head.items()}
    head = [
        HeadWeights(trained.get(layer.path) or base.head[layer.path], layer.activation)
        for layer in base.architecture.family.head
    ]
    own = [tensor for pair in pairs.values() for tensor in (pair.down, pair.up)]
    own += [tensor for linear in trained.values() for tensor in (linear.weight, linear.bias)]
    return PackedAdapter(adapter.spec, pairs, tuple(head), sum(tensor.nbytes for tensor in own))


class ServingBank:
    """Packed adapters on one base; what ``forward.classify`` takes for a batch that only answers."""

    def __init__(self, base: FrozenBase, adapters: Sequence[PackedAdapter]) -> None:
        self.base = base
        self.adapters = adapters

    def linear(
        self,
        layer: int,
        group: Group,
        sites: tuple[Site, ...],
        weights: Linear,
        x: Tensor,
        rows: Sequence[tuple[int, int, int]],
        dropout: Mapping[int, DropoutStream],
    ) -> Tensor:
        """See ``forward.Bank``; nothing is dropped."""
        y = F.linear(x, weights.weight, weights.bias)
        key = (self.base.architecture.layer_path(layer), group)
        for index, first, last in rows:
            pair = self.adapters[index].pairs.get(key)
            if pair and (part := pair.part(group, sites)):
                y[first:last].addmm_(x[first:last] @ part.down, part.up)
        return y

    def head(self, adapter: int) -> list[HeadWeights]:
        """See ``forward.Bank``."""
        return list(self.adapters[adapter].head)


@torch.no_grad()
def merge_adapter(base: FrozenBase, adapter: PackedAdapter) -> ServingBank:
    """A bank whose frozen weights already hold one adapter: ``W + scale * B A``.

    Every weight that the adapter leaves alone is the base's own. In float32 the logits are the bank's within 1e-4.
    """
    merged: dict[str, LayerWeights] = {}
    layers = []
    for index, layer in enumerate(base.layers):
        path = base.architecture.layer_path(index)
        if path not in merged:
            changed = {group: _merged_linear(layer, group, adapter.pairs.get((path, group))) for group in GROUPS}
            merged[path] = replace(layer, **changed)
        layers.append(merged[path])
    return ServingBank(replace(base, layers=tuple(layers)), [replace(adapter, pairs={})])


def _merged_linear(layer: LayerWeights, group: Group, pair: PackedPair | None) -> Linear:
    linear: Linear = getattr(layer, group)
    if pair is None:
        return linear
    exact = torch.promote_types(linear.weight.dtype, torch.float32)
    update = (pair.down.to(exact) @ pair.up.to(exact)).t()
    return Linear((linear.weight.to(exact) + update).to(linear.weight.dtype), linear.bias)


def _pack_pair(spec: AdapterSpec, group: Group, pair: LowRankPair, dtype: torch.dtype) -> PackedPair:
    sites, every = spec.group_sites(group), GROUPS[group]
    width, rank = pair.lora_b.shape[1], spec.rank
    up = torch.zeros(len(sites) * rank, len(every) * width, dtype=pair.lora_b.dtype, device=pair.lora_b.device)
    for position, site in enumerate(sites):
        first = every.index(site) * width
        up[position * rank : (position + 1) * rank, first : first + width] = spec.scale * pair.lora_b[position].t()
    return PackedPair(pair.lora_a.detach().to(dtype, copy=True).t(), up.to(dtype), sites)


def _copy(linear: Linear, dtype: torch.dtype) -> Linear:
    return Linear(linear.weight.detach().to(dtype, copy=True), linear.bias.detach().to(dtype, copy=True))
