"""Dropout on the input of an adapter's update: masks that a resumed run, or a run beside others, draws again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class DropoutSeed:
    """What decides the masks of a step: a resumed run draws the same ones."""

    seed: int
    step: int


class DropoutStream:
    """The dropout masks of one adapter for one forward pass, drawn in its order.

    Args:
        piece: place of the pass within the step.
    """

    def __init__(self, seed: DropoutSeed, piece: int, device: torch.device) -> None:
        entropy = np.random.SeedSequence([seed.seed, seed.step, piece])
        mixed = entropy.generate_state(1, np.uint64)  # the CPU's generator reads 32 bits
        self._generator = torch.Generator(device).manual_seed(int(mixed[0]))

    def next_seed(self) -> int:
        """A seed for masks that somebody else draws."""
        drawn = torch.randint(2**62, (1,), generator=self._generator, device=self._generator.device)
        return int(drawn)

    def mask(self, like: Tensor, probability: float) -> Tensor:
        """0 with the probability, else ``1 / (1 - probability)``; shape and type of ``like``."""
        kept = torch.empty_like(like).bernoulli_(1 - probability, generator=self._generator)
        return kept.div_(1 - probability)


def dropout_mask(probability: float, stream: DropoutStream | None, x: Tensor, filler: int) -> Tensor | None:
    """The mask of ``x``, and zeros for the filler after it."""
    if not probability or stream is None:
        return None
    mask = stream.mask(x, probability)
    return F.pad(mask, (0, 0, 0, filler)) if filler else mask
