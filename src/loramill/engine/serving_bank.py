"""Adapters packed for serving: in the compute type, without gradients, many of them in one product.

Training multiplies each adapter's rows by themselves (``bank``), which costs a handful of calls for each adapter and
layer. A serving batch has many adapters with few rows each. On GPUs, and where few shapes are liked, the matrices
of neighbours are laid side by side once for the batch, one product gives their rows the state under each of them, and
only the row's own is kept, as ``packed_updates`` does where it trains. The rest is cleared, not multiplied by zero: an
adapter whose states overflow spoils nobody else's answers. On a CPU that takes any shape, each adapter has a product
of its own, with nothing to throw away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from loramill.engine.base import FrozenBase, LayerWeights
from loramill.engine.dropout import DropoutStream
from loramill.engine.families import SITES, Site
from loramill.engine.linear import Linear
from loramill.engine.low_rank_adapter import GROUPS, Adapter, AdapterSpec, Group, HeadWeights, LowRankPair
from loramill.engine.packed_updates import AdapterRows

WIDE_RANK = 64
"""Ranks that share a product: enough that calls are few, few enough that what the mask throws away is little."""

INTEGER_OF_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class PackedUpdates:
    """The updates ``x @ down @ up`` of one input group, all layers in one tensor.

    Attributes:
        down: A, ``[layers, sites, rank, in]``.
        up: B transposed, times the scale, ``[layers, sites, rank, out]``.
        sites: the adapted ones, in order.
    """

    down: Tensor
    up: Tensor
    sites: tuple[Site, ...]

    @property
    def rank(self) -> int:
        return self.up.shape[2]

    def at(self, sites: tuple[Site, ...]) -> PackedUpdates:
        """The same with these sites, in order; zeros where one is not adapted."""
        if sites == self.sites:
            return self
        where = [sites.index(site) for site in self.sites]
        layers, _, rank, _ = self.up.shape
        down, up = (whole.new_zeros(layers, len(sites), rank, whole.shape[3]) for whole in (self.down, self.up))
        down[:, where], up[:, where] = self.down, self.up
        return PackedUpdates(down, up, sites)


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
        self._row_multiple = base.row_multiple
        self._wide_rank = WIDE_RANK if len(adapters) > 1 and _shares_products(base) else 0
        self._updates = {
            group: _side_by_side([adapter.updates.get(group) for adapter in adapters], self._wide_rank)
            for group in GROUPS
        }
        paths = [base.architecture.layer_path(layer) for layer in range(base.architecture.layers)]
        self._weights_of = [list(dict.fromkeys(paths)).index(path) for path in paths]

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
        for updates in self._updates[group]:
            self._add(y, x, updates, self._weights_of[layer], sites, rows)
        return y

    def _add(
        self, y: Tensor, x: Tensor, wide: _WideUpdates, index: int, sites: tuple[Site, ...], rows: AdapterRows
    ) -> None:
        """Add the updates of some neighbours to their rows of ``y``."""
        adapted = [position for position, site in enumerate(wide.updates.sites) if site in sites]
        if not adapted:
            return
        down, up = (whole[index, adapted[0] : adapted[-1] + 1] for whole in (wide.updates.down, wide.updates.up))
        own = _aligned(rows.spans[wide.first][1], rows.spans[wide.last - 1][2], len(x), self._row_multiple)
        states = x[own] @ down.flatten(0, 1).t()
        if self._wide_rank:  # else all the rows are of one adapter
            mask = _own_bits(wide.owner, rows, own, states)
            states.view(mask.dtype).bitwise_and_(mask)
        for position, state, site_up in zip(adapted, states.split(up.shape[1], 1), up, strict=True):
            column = sites.index(wide.updates.sites[position]) * up.shape[2]
            y[own, column : column + up.shape[2]].addmm_(state, site_up)

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
class _WideUpdates:
    """The updates of neighbouring adapters ``first`` to ``last`` (half-open) as one of the sum of their ranks.

    Attributes:
        owner: whose each column of a site's states is; -1 for those that only fill up.
    """

    updates: PackedUpdates
    first: int
    last: int
    owner: tuple[int, ...]


def _shares_products(base: FrozenBase) -> bool:
    """Whether neighbours share wide products: on a GPU, where each call counts, and where few shapes are liked."""
    return base.device.type != "cpu" or base.row_multiple > 1


def _side_by_side(updates: Sequence[PackedUpdates | None], wide_rank: int) -> list[_WideUpdates]:
    """Neighbours up to ``wide_rank``, at least one at a time; adapters without updates to the group are left out."""
    packs: list[dict[int, PackedUpdates]] = []
    for adapter, update in enumerate(updates):
        if update is None:
            continue
        if not packs or sum(other.rank for other in packs[-1].values()) + update.rank > wide_rank:
            packs.append({})
        packs[-1][adapter] = update
    return [_wide(pack, wide_rank) for pack in packs]


def _wide(pack: Mapping[int, PackedUpdates], wide_rank: int) -> _WideUpdates:
    """Filled up to ``wide_rank``, since oneDNN plans a product anew for every shape that it has not seen."""
    adapted = {site for update in pack.values() for site in update.sites}
    sites = tuple(site for site in SITES if site in adapted)
    alike = [update.at(sites) for update in pack.values()]
    owner = [adapter for adapter, update in pack.items() for _ in range(update.rank)]
    missing = max(0, wide_rank - len(owner))
    if len(alike) == 1 and not missing:
        return _WideUpdates(alike[0], min(pack), max(pack) + 1, tuple(owner))
    sides = []
    for name in ("down", "up"):
        parts = [getattr(update, name) for update in alike]
        layers, _, _, width = parts[0].shape
        sides.append(torch.cat([*parts, parts[0].new_zeros(layers, len(sites), missing, width)], 2))
    return _WideUpdates(PackedUpdates(sides[0], sides[1], sites), min(pack), max(pack) + 1, (*owner, *[-1] * missing))


def _aligned(first: int, last: int, end: int, multiple: int) -> slice:
    """The rows ``first`` to ``last`` and a few around them, so that few different numbers of rows come up."""
    return slice(first // multiple * multiple, min(end, -(-last // multiple) * multiple))


def _own_bits(owner: tuple[int, ...], rows: AdapterRows, own: slice, states: Tensor) -> Tensor:
    """All bits where one of the rows ``own`` meets the columns of its own adapter, else none; shaped as ``states``.

    As integers of the size of the states: clearing bits turns infinities into zeros, and takes a quarter of the time
    of a product.
    """
    key = (owner, states.shape[1])
    if key not in rows.masks:
        of_rows = np.full((own.stop, 1), -1)
        for adapter, first, last in rows.spans:
            of_rows[first:last] = adapter
        alike = torch.from_numpy(of_rows[own] == np.resize(owner, states.shape[1]))
        rows.masks[key] = alike.to(states.device, INTEGER_OF_SIZE[states.element_size()]).neg_()
    return rows.masks[key]


def _pack_updates(base: FrozenBase, adapter: Adapter, group: Group) -> PackedUpdates:
    known = {path: pair for (path, own), pair in adapter.pairs.items() if own == group}
    paths = dict.fromkeys(base.architecture.layer_path(layer) for layer in range(base.architecture.layers))
    lora_a, lora_b = next(iter(known.values())).whole()
    empty = LowRankPair(torch.zeros_like(lora_a), torch.zeros_like(lora_b))
    pairs = [known.get(path, empty).whole() for path in paths]
    down = torch.stack([lora_a.unflatten(0, (len(lora_b), -1)) for lora_a, lora_b in pairs])
    up = torch.stack([adapter.spec.scale * lora_b.transpose(1, 2) for _, lora_b in pairs])
    largest = min(torch.finfo(dtype).max for dtype in (base.dtype, up.dtype))
    up = up.clamp(-largest, largest)  # zero times infinity would reach the rows of others
    return PackedUpdates(down.to(base.dtype), up.to(base.dtype), adapter.spec.group_sites(group))


def _merged_linear(linear: Linear, group: Group, updates: PackedUpdates, index: int) -> Linear:
    exact = torch.promote_types(linear.weight.dtype, torch.float32)
    weight = linear.weight.to(exact, copy=True)
    for site, down, up in zip(updates.sites, updates.down[index].to(exact), updates.up[index].to(exact), strict=True):
        first = GROUPS[group].index(site) * up.shape[1]
        weight[first : first + up.shape[1]] += up.t() @ down
    return Linear(weight.to(linear.weight.dtype), linear.bias)


def _copy(linear: Linear, dtype: torch.dtype) -> Linear:
    return Linear(linear.weight.detach().to(dtype, copy=True), linear.bias.detach().to(dtype, copy=True))
