"""PiSSA (Meng et al., arXiv:2404.02948): A and B start as the principal part of each weight.

In the paper the base keeps the rest, ``W - scale * B A``. Here the base is shared and never changes, so what an adapter
started from is subtracted beside it instead, which is the same map: ``x (W - s B0 A0)^T + s x (B A)^T``. Saved in
PEFT's format, both parts stand side by side as a plain adapter of twice the rank on the original base, as in PEFT's own
conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loramill.engine.base import FrozenBase
from loramill.engine.families import Site

if TYPE_CHECKING:
    from loramill.engine.low_rank_adapter import AdapterSpec, Group, LowRankPair


def start_from_principal_parts(
    base: FrozenBase, spec: AdapterSpec, pairs: Mapping[tuple[str, Group], LowRankPair]
) -> dict[tuple[str, Group], LowRankPair]:
    """Put the principal part of every adapted weight into its A and B, and keep a copy as their start."""
    layer_of_path = {base.architecture.layer_path(layer): layer for layer in range(base.architecture.layers)}
    started = {}
    with torch.no_grad():
        for (path, group), pair in pairs.items():
            for place, site in enumerate(spec.group_sites(group)):
                lora_a, lora_b = principal_part(site_weight(base, layer_of_path[path], site), spec.rank, spec.scale)
                pair.lora_a[place * spec.rank : (place + 1) * spec.rank].copy_(lora_a)
                pair.lora_b[place].copy_(lora_b)
            start = pair.lora_a.detach().clone(), pair.lora_b.detach().clone()
            started[path, group] = replace(pair, start=start)
    return started


def principal_part(weight: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """A ``[rank, in]`` and B ``[out, rank]`` with ``scale * B A`` the best approximation of ``weight`` of that rank."""
    u, singular, vh = torch.linalg.svd(weight.to(torch.promote_types(weight.dtype, torch.float32)), full_matrices=False)
    root = (singular[:rank] / scale).sqrt()
    return root[:, None] * vh[:rank], u[:, :rank] * root


def copy_both_halves(pair: LowRankPair, stored: LowRankPair) -> None:
    """Take the values and the start of a PiSSA adapter from the plain one of twice the rank that was saved."""
    if pair.start is None:
        raise ValueError("only an adapter with a start has two halves")
    sites, _, rank = pair.lora_b.shape
    lora_a = stored.lora_a.view(sites, 2 * rank, -1)
    pair.lora_a.copy_(lora_a[:, :rank].reshape(pair.lora_a.shape))
    pair.lora_b.copy_(stored.lora_b[:, :, :rank])
    pair.start[0].copy_(lora_a[:, rank:].reshape(pair.lora_a.shape))
    pair.start[1].copy_(-stored.lora_b[:, :, rank:])


def site_weight(base: FrozenBase, layer: int, site: Site) -> Tensor:
    """The frozen weight ``[out, in]`` of a site."""
    weights, hidden = base.layers[layer], base.architecture.hidden_size
    match site:
        case "query" | "key" | "value":
            place = ("query", "key", "value").index(site)
            return weights.qkv.weight[place * hidden : (place + 1) * hidden]
        case "attention_output":
            return weights.attention_output.weight
        case "up":
            return weights.up.weight
        case "down":
            return weights.down.weight
