"""The passes of a step in lanes that are processes: see ``forked_lanes`` for why, ``step`` for what."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from loramill.engine.bank import AdapterBank
from loramill.engine.forked_lanes import ForkedLanes, can_fork, shared_memory
from loramill.engine.lanes import lane_count
from loramill.engine.step import PASSES_FOR_A_LANE, Gradients, Pass, Sources, gradients_of


@contextmanager
def step_copies(bank: AdapterBank, sources: Sources) -> Iterator[StepCopies | None]:
    """Copies of this process for the steps of a training; ``None`` where threads have to do.

    Args:
        sources: adapter -> the rows that it learns from, every adapter's.
    """
    if bank.base.device.type != "cpu" or not bank.base.reentrant or not can_fork():
        yield None
        return
    copies = StepCopies(bank, sources)
    try:
        yield copies
    finally:
        copies.close()


class StepCopies:
    """Runs passes of one adapter each, some here and some in copies of this process.

    The copies read the adapters' values and leave gradients in memory that all of them share.
    """

    def __init__(self, bank: AdapterBank, sources: Sources) -> None:
        self._bank, self._sources = bank, sources
        self._lanes: ForkedLanes[list[Pass], list[Gradients]] = ForkedLanes(self._work)
        self._values = [shared_memory(len(adapter.values), adapter.values.dtype) for adapter in bank.adapters]
        self._gradients: dict[int, list[Tensor]] = {}

    def close(self) -> None:
        """End the copies."""
        self._lanes.close()

    def __call__(self, passes: Sequence[Pass]) -> list[Gradients]:
        """What each pass gives, in order; see ``ForkedLanes.run`` for what it raises."""
        lanes = min(lane_count(), len(passes))
        if lanes > 1:
            self._prepare(passes, lanes)
        shares = _share_out(passes, lanes)
        by_lane = self._lanes.run([[passes[place] for place in share] for share in shares])
        found: dict[int, Gradients] = {}
        for lane, (share, own) in enumerate(zip(shares, by_lane, strict=True)):
            for slot, (place, (results, gradients)) in enumerate(zip(share, own, strict=True)):
                found[place] = results, gradients or [self._left_by(lane, slot, passes[place])]
        return [found[place] for place in range(len(passes))]

    def _prepare(self, passes: Sequence[Pass], lanes: int) -> None:
        """What copies need before they are made, and the values that they go on with."""
        if not self._gradients:
            self._bank.base.lay_out()
        largest = max(self._values, key=len)
        for lane in range(1, lanes):
            if lane not in self._gradients:
                self._gradients[lane] = [shared_memory(len(largest), largest.dtype) for _ in range(PASSES_FOR_A_LANE)]
        for adapter in {pieces[0].adapter for pieces in passes}:
            self._values[adapter].copy_(self._bank.adapters[adapter].values)

    def _work(self, passes: list[Pass], lane: int) -> list[Gradients]:
        """The passes of one lane; a copy leaves its gradients in memory that its parent sees, and returns none."""
        if lane == 0:
            return [gradients_of(self._bank, self._sources, pieces) for pieces in passes]
        found: list[Gradients] = []
        for pieces, shared in zip(passes, self._gradients[lane], strict=False):
            adapter = self._bank.adapters[pieces[0].adapter]
            adapter.values.copy_(self._values[pieces[0].adapter])
            results, gradients = gradients_of(self._bank, self._sources, pieces)
            torch._foreach_copy_([own for own, _ in gradients], [gradient for _, gradient in gradients])
            shared[: len(adapter.grads)].copy_(adapter.grads)
            found.append((results, []))
        return found

    def _left_by(self, lane: int, slot: int, pieces: Pass) -> tuple[Tensor, Tensor]:
        """The gradients that a copy left in memory."""
        total = self._bank.adapters[pieces[0].adapter].grads
        return total, self._gradients[lane][slot][: len(total)]


def _share_out(passes: Sequence[Pass], lanes: int) -> list[list[int]]:
    """Places of the passes for each lane, equally many to one: the largest first, to whoever has least to do."""
    most = math.ceil(len(passes) / lanes)
    shares: list[list[int]] = [[] for _ in range(lanes)]
    tokens = [sum(piece.tokens for piece in pieces) for pieces in passes]
    for place in sorted(range(len(passes)), key=lambda place: -tokens[place]):
        open_shares = [share for share in shares if len(share) < most]
        min(open_shares, key=lambda share: sum(tokens[place] for place in share)).append(place)
    return shares
