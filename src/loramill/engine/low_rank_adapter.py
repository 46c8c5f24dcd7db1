"""A low-rank adapter: what it is, and its values in one flat tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from loramill.engine.base import FrozenBase
from loramill.engine.families import Activation, Architecture, Site
from loramill.engine.linear import Linear
from loramill.engine.pissa import copy_both_halves, start_from_principal_parts

Group = Literal["qkv", "attention_output", "up", "down"]
GROUPS: Mapping[Group, tuple[Site, ...]] = {
    "qkv": ("query", "key", "value"),
    "attention_output": ("attention_output",),
    "up": ("up",),
    "down": ("down",),
}
"""Sites that read the same input; their A matrices are one matrix."""
Initialisation = Literal["default", "pissa"]


@dataclass(frozen=True)
class AdapterSpec:
    """What an adapter is, apart from its values.

    Attributes:
        rank_stabilised: scale by ``alpha / sqrt(rank)`` (rsLoRA, arXiv:2312.03732), not ``alpha / rank``.
        sites: adapted modules, in the order of ``SITES``.
        dropout: probability, on the input of the update while training.
        labels: width of the logits.
        seed: decides the initial values.
        b_rate_ratio: learning rate of B over that of A (LoRA+, arXiv:2402.12354).
        layers: adapted encoder layers, ascending; ``None`` means all.
        init: ``pissa`` starts from the principal part of each weight, see ``engine.pissa``.
        modules, dora: what an adapter of a Transformers module is (``engine.module_base``); empty on the fast path.
    """

    rank: int
    alpha: float
    sites: tuple[Site, ...]
    dropout: float
    labels: int
    seed: int
    rank_stabilised: bool = False
    b_rate_ratio: float = 1.0
    layers: tuple[int, ...] | None = None
    init: Initialisation = "default"
    modules: tuple[str, ...] = ()
    dora: bool = False

    @property
    def scale(self) -> float:
        """Factor of the update."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def group_sites(self, group: Group) -> tuple[Site, ...]:
        """The adapted sites of an input group."""
        return tuple(site for site in GROUPS[group] if site in self.sites)


@dataclass(frozen=True)
class LowRankPair:
    """A of all adapted sites of an input group ``[sites * rank, in]``, and their B ``[sites, out, rank]``.

    Attributes:
        start: the A and B that a PiSSA adapter started from; its update is ``B A - B_start A_start``, so that the base
            stays as it is for everybody else.
    """

    lora_a: Tensor
    lora_b: Tensor
    start: tuple[Tensor, Tensor] | None = None

    def whole(self) -> tuple[Tensor, Tensor]:
        """A and B of all sites."""
        return self.of_sites(0, len(self.lora_b))

    def of_sites(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """A and B of some of the sites, as the forward pass and PEFT's files have them: a start doubles the rank."""
        rank = self.lora_b.shape[2]
        whole = last - first == len(self.lora_b)
        lora_a = self.lora_a if whole else self.lora_a[first * rank : last * rank]
        lora_b = self.lora_b if whole else self.lora_b[first:last]
        if self.start is None:
            return lora_a, lora_b
        start_a, start_b = self.start[0][first * rank : last * rank], self.start[1][first:last]
        shape = (last - first, rank, -1)
        beside = torch.cat([lora_a.view(shape), start_a.view(shape)], 1).view(2 * rank * (last - first), -1)
        return beside, torch.cat([lora_b, -start_b], 2)


@dataclass(frozen=True)
class HeadWeights:
    """A head layer of an adapter: its linear map, and what follows it."""

    linear: Linear
    activation: Activation


@dataclass(frozen=True)
class ParameterRange:
    """A half-open range of an adapter's flat values that share an optimizer rule."""

    first: int
    last: int
    rate_ratio: float
    decays: bool


class Adapter:
    """One adapter: every trainable value in one flat tensor, and named views of it.

    Attributes:
        values, grads: ``[parameters]``.
        pairs: (layer path, input group) -> A and B.
        head: path -> trained head layer.
        ranges: the flat values by optimizer rule.
    """

    def __init__(self, base: FrozenBase, spec: AdapterSpec, *, dtype: torch.dtype = torch.float32) -> None:
        self.spec = spec
        slots = sorted(_slots(base, spec), key=lambda slot: ROLES.index(slot.role))
        size = sum(slot.size for slot in slots)
        self.values = torch.zeros(size, dtype=dtype, device=base.device)
        self.grads = torch.zeros_like(self.values)
        views = leaf_views(self.values, self.grads, {(slot.role, slot.name): slot.shape for slot in slots})
        self.pairs = {
            (path, group): LowRankPair(views["lora_a", f"{path}/{group}"], views["lora_b", f"{path}/{group}"])
            for path, group, _ in _adapted_inputs(base.architecture, spec)
        }
        self.head = {
            layer.path: Linear(views["head_weight", layer.path], views["head_bias", layer.path])
            for layer in base.trained_head()
        }
        self.ranges = optimizer_ranges([(slot.role, slot.size) for slot in slots], spec)
        self._initialise(base.architecture.initializer_range)
        if spec.init == "pissa":
            self.pairs = start_from_principal_parts(base, spec, self.pairs)

    @property
    def parameters(self) -> list[Tensor]:
        """The views of ``values`` that a forward pass reads; each has its part of ``grads``."""
        pairs = [tensor for pair in self.pairs.values() for tensor in (pair.lora_a, pair.lora_b)]
        return pairs + [tensor for layer in self.head.values() for tensor in (layer.weight, layer.bias)]

    def copy_from(self, stored: Adapter) -> None:
        """Take over the values of an adapter of the same kind, as ``peft_format`` reads it.

        Raises:
            RuntimeError: it has other shapes.
        """
        with torch.no_grad():
            if self.spec.init != "pissa":
                self.values.copy_(stored.values)
                return
            for place, pair in self.pairs.items():
                copy_both_halves(pair, stored.pairs[place])
            for path, layer in self.head.items():
                layer.weight.copy_(stored.head[path].weight)
                layer.bias.copy_(stored.head[path].bias)

    def _initialise(self, head_deviation: float) -> None:
        """Draw as PEFT and Transformers do: A uniform (Kaiming, a = sqrt(5)), B zero, head normal, biases zero.

        Drawn on the CPU, so that a seed means the same values on every device.
        """
        generator = torch.Generator().manual_seed(self.spec.seed)
        with torch.no_grad():
            for pair in self.pairs.values():
                bound = 1 / math.sqrt(pair.lora_a.shape[1])
                drawn = torch.empty(pair.lora_a.shape, dtype=pair.lora_a.dtype)
                pair.lora_a.copy_(drawn.uniform_(-bound, bound, generator=generator))
            for layer in self.head.values():
                drawn = torch.empty(layer.weight.shape, dtype=layer.weight.dtype)
                layer.weight.copy_(drawn.normal_(0.0, head_deviation, generator=generator))


Name = TypeVar("Name")
Role = Literal["lora_a", "lora_b", "head_weight", "head_bias"]
ROLES: tuple[Role, ...] = ("lora_a", "lora_b", "head_weight", "head_bias")


@dataclass(frozen=True)
class _Slot:
    """A named tensor within an adapter's flat values."""

    role: Role
    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def _adapted_inputs(architecture: Architecture, spec: AdapterSpec) -> Iterator[tuple[str, Group, tuple[Site, ...]]]:
    """(layer path, input group, adapted sites); layers that share their weights share their adapter too."""
    layers = range(architecture.layers) if spec.layers is None else spec.layers
    for path in dict.fromkeys(architecture.layer_path(layer) for layer in layers):
        for group in GROUPS:
            if sites := spec.group_sites(group):
                yield path, group, sites


def _slots(base: FrozenBase, spec: AdapterSpec) -> Iterator[_Slot]:
    for path, group, sites in _adapted_inputs(base.architecture, spec):
        wide, narrow = base.architecture.site_shape(sites[0])
        yield _Slot("lora_a", f"{path}/{group}", (len(sites) * spec.rank, narrow))
        yield _Slot("lora_b", f"{path}/{group}", (len(sites), wide, spec.rank))
    hidden = base.architecture.hidden_size
    for layer in base.trained_head():
        width = spec.labels if layer is base.architecture.family.head[-1] else hidden
        yield _Slot("head_weight", layer.path, (width, hidden))
        yield _Slot("head_bias", layer.path, (width,))


def leaf_views(values: Tensor, grads: Tensor, shapes: Mapping[Name, Sequence[int]]) -> dict[Name, Tensor]:
    """Views of the flat tensors, end to end, that autograd takes for parameters and accumulates gradients into."""
    views, first = {}, 0
    for name, shape in shapes.items():
        last = first + math.prod(shape)
        views[name] = values[first:last].view(tuple(shape)).detach().requires_grad_()
        views[name].grad = grads[first:last].view(tuple(shape))
        first = last
    return views


def optimizer_ranges(sizes: Sequence[tuple[Role, int]], spec: AdapterSpec) -> tuple[ParameterRange, ...]:
    """One range a role, since values are sorted by role: B has its own rate in LoRA+, biases never decay."""
    ranges, first = [], 0
    for role in ROLES:
        size = sum(size for known, size in sizes if known == role)
        if size:
            ratio = spec.b_rate_ratio if role == "lora_b" else 1.0
            ranges.append(ParameterRange(first, first + size, ratio, decays=role != "head_bias"))
        first += size
    return tuple(ranges)
