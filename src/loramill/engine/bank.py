"""Adapters that train on one frozen base, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from loramill.engine.adapted_linear import LowRankUpdate, adapted_linear
from loramill.engine.base import FrozenBase
from loramill.engine.batching import Segment
from loramill.engine.dropout import DropoutStream, dropout_mask
from loramill.engine.families import Site
from loramill.engine.linear import Linear
from loramill.engine.low_rank_adapter import Adapter, Group, HeadWeights
from loramill.engine.packed_updates import AdapterRows, packed_linear


class AdapterBank:
    """Adapters on one base; a batch says which of them each of its rows belongs to."""

    def __init__(self, base: FrozenBase, adapters: Sequence[Adapter]) -> None:
        self.base = base
        self.adapters = list(adapters)

    def updates(
        self,
        layer: int,
        group: Group,
        sites: tuple[Site, ...],
        rows: AdapterRows,
        x: Tensor,
        dropout: Mapping[int, DropoutStream],
    ) -> list[LowRankUpdate]:
        """The updates of some sites of one input group to the rows of ``x``.

        Args:
            sites: which outputs stand side by side in the frozen layer that ``x`` goes through.
            rows: of ``x``; what comes after them is filler, which the last adapter takes along.
            dropout: adapter -> its masks, while training.
        """
        path = self.base.architecture.layer_path(layer)
        found = []
        for index, first, last in rows.spans:
            adapter = self.adapters[index]
            pair = adapter.pairs.get((path, group))
            if pair is None:  # not adapted here
                continue
            adapted = adapter.spec.group_sites(group)
            chosen = [position for position, site in enumerate(adapted) if site in sites]
            if not chosen:
                continue
            lora_a, lora_b = pair.of_sites(chosen[0], chosen[-1] + 1)
            width, end = lora_b.shape[1], len(x) if last == rows.spans[-1][2] else last
            found.append(
                LowRankUpdate(
                    first=first,
                    last=end,
                    lora_a=lora_a,
                    lora_b=lora_b,
                    columns=tuple(width * sites.index(adapted[position]) for position in chosen),
                    scale=adapter.spec.scale,
                    dropout_mask=dropout_mask(adapter.spec.dropout, dropout.get(index), x[first:last], end - last),
                )
            )
        return found

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
        """See ``forward.Bank``."""
        updates = self.updates(layer, group, sites, rows, x, dropout)
        if len(updates) > 1 and x.device.type != "cpu":
            return packed_linear(x, weights, updates, rows)
        return adapted_linear(x, weights, updates)

    def head(self, adapter: int) -> list[HeadWeights]:
        """See ``forward.Bank``."""
        trained = self.adapters[adapter].head
        return [
            HeadWeights(trained.get(layer.path) or self.base.head[layer.path], layer.activation)
            for layer in self.base.architecture.family.head
        ]


def token_rows(segments: Sequence[Segment]) -> AdapterRows:
    """Whose each token is."""
    return AdapterRows(tuple((segment.adapter, segment.first_token, segment.last_token) for segment in segments))


def text_rows(segments: Sequence[Segment]) -> AdapterRows:
    """Whose each row's pooled token is."""
    return AdapterRows(tuple((segment.adapter, segment.first_row, segment.last_row) for segment in segments))
