"""Adapters packed for serving: in the compute type, without gradients, all of them in a few batched products.

Training multiplies each adapter's rows by themselves (``bank``), which costs a handful of calls for each adapter and
layer. A serving batch has many adapters with few rows each: here their matrices are stacked once for the batch, the
rows are cut into chunks of one adapter, and every layer makes one batched product with A and one with the B of each
site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from loramill.engine.base import FrozenBase, LayerWeights
from loramill.engine.dropout import DropoutStream
from loramill.engine.families import Site
from loramill.engine.linear import Linear
from loramill.engine.low_rank_adapter import GROUPS, Adapter, AdapterSpec, Group, HeadWeights, LowRankPair
from loramill.engine.packed_updates import AdapterRows

CHUNK_ROWS = 32
"""Rows of a batched product: few enough that padding is small, enough that adapters do not come one row at a time."""

ROUND_CHUNKS = 8
"""Chunks of a batch are filled up to a multiple of this: every new shape costs a kernel of its own."""


@dataclass(frozen=True)
class PackedUpdates:
    """The updates ``x @ down @ up`` of one input group, all layers in one tensor.

    Attributes:
        down: A transposed, ``[layers, in, sites * rank]``.
        up: B transposed, times the scale, ``[layers, sites, rank, out]``.
        sites: the adapted ones, in order.
    """

    down: Tensor
    up: Tensor
    sites: tuple[Site, ...]

    @property
    def rank(self) -> int:
        return self.up.shape[2]


@dataclass(frozen=True)
class PackedAdapter:
    """One adapter that only answers.

    Attributes:
        updates: by input group; groups without adapted sites are absent.
        head: every head layer in order, the frozen ones included; never below float32.
        nbytes: memory of its own; frozen head layers belong to the base.
    """

    spec: AdapterSpec
    updates: Mapping[Group, PackedUpdates]
    head: tuple[HeadWeights, ...]
    nbytes: int


@torch.no_grad()
def pack_adapter(base: FrozenBase, adapter: Adapter) -> PackedAdapter:
    """A copy of an adapter for serving, in the base's compute type."""
    updates = {group: _pack_updates(base, adapter, group) for group in GROUPS if adapter.spec.group_sites(group)}
    exact = torch.promote_types(base.dtype, torch.float32)
    trained = {path: _copy(linear, exact) for path, linear in adapter.head.items()}
    head = [
        HeadWeights(trained.get(layer.path) or base.head[layer.path], layer.activation)
        for layer in base.architecture.family.head
    ]
    own = [tensor for update in updates.values() for tensor in (update.down, update.up)]
    own += [tensor for linear in trained.values() for tensor in (linear.weight, linear.bias)]
    return PackedAdapter(adapter.spec, updates, tuple(head), sum(tensor.nbytes for tensor in own))


class ServingBank:
    """Packed adapters on one base; what ``forward.classify`` takes for a batch that only answers.

    Make one for each batch, with the adapters of its segments in order.
    """

    def __init__(self, base: FrozenBase, adapters: Sequence[PackedAdapter]) -> None:
        self.base = base
        self.adapters = adapters
        self._stacks = {
            group: stack
            for group in GROUPS
            if (stack := _stack([adapter.updates.get(group) for adapter in adapters])) is not None
        }
        paths = [base.architecture.layer_path(layer) for layer in range(base.architecture.layers)]
        self._weights_of = [list(dict.fromkeys(paths)).index(path) for path in paths]
        self._chunks: dict[int, _Chunks] = {}

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
        """See ``forward.Bank``; nothing is dropped."""
        y = weights.apply_frozen(x)
        stack = self._stacks.get(group)
        adapted = [position for position, site in enumerate(stack.sites) if site in sites] if stack else []
        if stack is None or not adapted:
            return y
        index, rank, width = self._weights_of[layer], stack.rank, stack.up.shape[-1]
        down = stack.down[:, index, :, adapted[0] * rank : (adapted[-1] + 1) * rank]
        up = stack.up[:, index, adapted[0] : adapted[-1] + 1]
        columns = [width * sites.index(stack.sites[position]) for position in adapted]
        if len(self.adapters) == 1:
            state = x @ down[0]
            for place, column in enumerate(columns):
                y[:, column : column + width].addmm_(state[:, place * rank : (place + 1) * rank], up[0, place])
            return y
        chunks = self._chunks_of(rows, x.device)
        chunked = torch.bmm(
            x.index_select(0, chunks.gather).view(len(chunks.owner), -1, x.shape[1]), down[chunks.owner]
        )
        for place, column in enumerate(columns):
            added = torch.bmm(chunked[:, :, place * rank : (place + 1) * rank], up[chunks.owner, place])
            y[: len(chunks.back), column : column + width] += added.view(-1, width).index_select(0, chunks.back)
        return y

    def head(self, adapter: int) -> list[HeadWeights]:
        """See ``forward.Bank``."""
        return list(self.adapters[adapter].head)

    def _chunks_of(self, rows: AdapterRows, device: torch.device) -> _Chunks:
        """The chunks of these rows; a pass asks for the same two in every layer: all tokens, and first tokens."""
        count = rows.spans[-1][2]
        if count not in self._chunks:
            self._chunks[count] = _cut(rows, device)
        return self._chunks[count]


@torch.no_grad()
def merge_adapter(base: FrozenBase, adapter: PackedAdapter) -> ServingBank:
    """A bank whose frozen weights already hold one adapter: ``W + scale * B A``.

    Every weight that the adapter leaves alone is the base's own. In float32 the logits are the bank's within 1e-4.
    """
    merged: dict[str, LayerWeights] = {}
    layers = []
    for layer, weights in enumerate(base.layers):
        path = base.architecture.layer_path(layer)
        if path not in merged:
            changed = {
                group: _merged_linear(getattr(weights, group), group, updates, len(merged))
                for group, updates in adapter.updates.items()
            }
            merged[path] = replace(weights, **changed)
        layers.append(merged[path])
    return ServingBank(replace(base, layers=tuple(layers)), [replace(adapter, updates={})])


@dataclass(frozen=True)
class _Stack:
    """The updates of one input group of several adapters: as ``PackedUpdates``, with the adapters in front.

    Adapters of a smaller rank, or without one of the sites, have zeros there.
    """

    down: Tensor
    up: Tensor
    sites: tuple[Site, ...]

    @property
    def rank(self) -> int:
        return self.up.shape[3]


@dataclass(frozen=True)
class _Chunks:
    """Rows cut into chunks of one adapter.

    Attributes:
        owner: int64 ``[chunks]``, whose rows a chunk has.
        gather: int64 ``[chunks * size]``, the row at each place; a chunk that is not full repeats its first, and one
            that nobody needs the first row of all.
        back: int64 ``[rows]``, the place of each row.
    """

    owner: Tensor
    gather: Tensor
    back: Tensor


def _cut(rows: AdapterRows, device: torch.device) -> _Chunks:
    """Chunks for rows of several adapters; few different numbers of chunks, and of rows in one, come out of it."""
    size = min(CHUNK_ROWS, 1 << (max(last - first for _, first, last in rows.spans) - 1).bit_length())
    owner: list[int] = []
    gather, back = [], []
    for adapter, first, last in rows.spans:
        for start in range(first, last, size):
            places = start + np.arange(size)
            back.append(len(owner) * size + np.arange(min(size, last - start)))
            gather.append(np.where(places < last, places, start))
            owner.append(adapter)
    unused = -len(owner) % ROUND_CHUNKS
    gather.append(np.zeros(unused * size, dtype=np.int64))
    indices = (np.asarray(owner + [0] * unused), np.concatenate(gather), np.concatenate(back))
    return _Chunks(*(torch.from_numpy(index).to(device) for index in indices))


def _stack(updates: Sequence[PackedUpdates | None]) -> _Stack | None:
    known = [update for update in updates if update is not None]
    if not known:
        return None
    sites = tuple(site for site in _every_site(known) if any(site in update.sites for update in known))
    rank = max(update.rank for update in known)
    if all(update is not None and (update.sites, update.rank) == (sites, rank) for update in updates):
        stacked = [torch.stack([getattr(update, name) for update in known]) for name in ("down", "up")]
        return _Stack(stacked[0], stacked[1], sites)
    layers, inputs, _ = known[0].down.shape
    width = known[0].up.shape[3]
    down = known[0].down.new_zeros(len(updates), layers, inputs, len(sites), rank)
    up = known[0].up.new_zeros(len(updates), layers, len(sites), rank, width)
    for position, update in enumerate(updates):
        if update is not None:
            where = [sites.index(site) for site in update.sites]
            down[position, :, :, where, : update.rank] = update.down.unflatten(2, (len(where), update.rank))
            up[position, :, where, : update.rank] = update.up
    return _Stack(down.flatten(3), up, sites)


def _every_site(updates: Sequence[PackedUpdates]) -> tuple[Site, ...]:
    """The sites of the input group that these belong to."""
    return next(sites for sites in GROUPS.values() if updates[0].sites[0] in sites)


def _pack_updates(base: FrozenBase, adapter: Adapter, group: Group) -> PackedUpdates:
    known = {path: pair for (path, own), pair in adapter.pairs.items() if own == group}
    paths = dict.fromkeys(base.architecture.layer_path(layer) for layer in range(base.architecture.layers))
    lora_a, lora_b = next(iter(known.values())).whole()
    empty = LowRankPair(torch.zeros_like(lora_a), torch.zeros_like(lora_b))
    pairs = [known.get(path, empty).whole() for path in paths]
    down = torch.stack([lora_a.t() for lora_a, _ in pairs])
    up = torch.stack([adapter.spec.scale * lora_b.transpose(1, 2) for _, lora_b in pairs])
    return PackedUpdates(down.to(base.dtype), up.to(base.dtype), adapter.spec.group_sites(group))


def _merged_linear(linear: Linear, group: Group, updates: PackedUpdates, index: int) -> Linear:
    exact = torch.promote_types(linear.weight.dtype, torch.float32)
    weight = linear.weight.to(exact, copy=True)
    width, rank = updates.up.shape[3], updates.rank
    for position, site in enumerate(updates.sites):
        down = updates.down[index, :, position * rank : (position + 1) * rank].to(exact)
        first = GROUPS[group].index(site) * width
        weight[first : first + width] += (down @ updates.up[index, position].to(exact)).t()
    return Linear(weight.to(linear.weight.dtype), linear.bias)


def _copy(linear: Linear, dtype: torch.dtype) -> Linear:
    return Linear(linear.weight.detach().to(dtype, copy=True), linear.bias.detach().to(dtype, copy=True))
