"""AdamW over one adapter's flat values, and the learning rate of a step.

A dozen vector operations on one buffer replace a loop over hundreds of small tensors. ``torch.optim`` would cost more
than a second of imports before the first step; a test holds this against it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from loramill.engine.bank import Adapter

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class AdamW:
    """Decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101) with clipping by the gradient's norm.

    Args:
        max_grad_norm: the whole gradient of the adapter is scaled down to this norm; 0 does not clip.
    """

    def __init__(self, adapter: Adapter, *, weight_decay: float, max_grad_norm: float) -> None:
        self._adapter = adapter
        self._weight_decay, self._max_grad_norm = weight_decay, max_grad_norm
        self.mean = torch.zeros_like(adapter.values)
        self.square = torch.zeros_like(adapter.values)
        self.steps = 0

    def step(self, rate: float) -> float:
        """Update the values from the gradient and clear it.

        Returns:
            The gradient's norm before clipping; nothing is updated when it is not finite.
        """
        grads = self._adapter.grads
        norm = float(torch.linalg.vector_norm(grads))
        if math.isfinite(norm):
            if self._max_grad_norm and norm > self._max_grad_norm:
                grads.mul_(self._max_grad_norm / (norm + 1e-6))
            self._update(rate)
        grads.zero_()
        return norm

    def _update(self, rate: float) -> None:
        self.steps += 1
        grads, (beta1, beta2) = self._adapter.grads, BETAS
        self.mean.lerp_(grads, 1 - beta1)
        self.square.mul_(beta2).addcmul_(grads, grads, value=1 - beta2)
        deviation = self.square.sqrt().div_(math.sqrt(1 - beta2**self.steps)).add_(EPSILON)
        for part in self._adapter.ranges:
            values, own_rate = self._adapter.values[part.first : part.last], rate * part.rate_ratio
            if part.decays and self._weight_decay:
                values.mul_(1 - own_rate * self._weight_decay)
            values.addcdiv_(
                self.mean[part.first : part.last],
                deviation[part.first : part.last],
                value=-own_rate / (1 - beta1**self.steps),
            )

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs to go on bit by bit."""
        return {"mean": self.mean, "square": self.square, "steps": torch.tensor(self.steps)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.steps = int(state["steps"])


def learning_rate(
    step: int, *, peak: float, total_steps: int, warmup_ratio: float, schedule: Literal["linear", "cosine", "constant"]
) -> float:
    """Rate of the 0-based ``step``, as Transformers' schedules give it.

    It rises linearly from 0 over ``ceil(warmup_ratio * total_steps)`` steps, then falls to 0 (linear, half a cosine) or
    stays.
    """
    warmup = math.ceil(warmup_ratio * total_steps)
    if step < warmup:
        return peak * step / max(1, warmup)
    progress = (step - warmup) / max(1, total_steps - warmup)
    match schedule:
        case "linear":
            return peak * max(0.0, 1 - progress)
        case "cosine":
            return peak * max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
        case "constant":
            return peak
