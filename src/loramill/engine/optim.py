"""AdamW over the flat values of adapters, and the learning rate of a step.

A dozen vector operations on one buffer replace a loop over hundreds of small tensors; several adapters take their steps
in the same dozen calls. ``torch.optim`` would cost more than a second of imports before the first step; a test holds
this against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from loramill.engine.low_rank_adapter import Adapter

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class AdamW:
    """Decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101) with clipping by the gradient's norm.

    Args:
        max_grad_norm: the whole gradient of the adapter is scaled down to this norm; 0 does not clip.
    """

    def __init__(self, adapter: Adapter, *, weight_decay: float, max_grad_norm: float) -> None:
        self.adapter = adapter
        self.weight_decay, self.max_grad_norm = weight_decay, max_grad_norm
        self.mean = torch.zeros_like(adapter.values)
        self.square = torch.zeros_like(adapter.values)
        self.steps = 0

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs to go on bit by bit."""
        return {"mean": self.mean, "square": self.square, "steps": torch.tensor(self.steps)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.steps = int(state["steps"])


def update(optimizers: Sequence[AdamW], rates: Sequence[float]) -> list[float]:
    """One step of each optimizer at its rate: updates the adapters' values from their gradients, and clears those.

    Returns:
        The gradients' norms before clipping; an adapter whose norm is not finite keeps its values.
    """
    norms = torch.stack(torch._foreach_norm([optimizer.adapter.grads for optimizer in optimizers])).tolist()
    known = list(zip(optimizers, rates, norms, strict=True))
    if finite := [(optimizer, rate, norm) for optimizer, rate, norm in known if math.isfinite(norm)]:
        chosen = [optimizer for optimizer, _, _ in finite]
        _clip(chosen, [norm for _, _, norm in finite])
        _follow(chosen, [rate for _, rate, _ in finite])
    torch._foreach_zero_([optimizer.adapter.grads for optimizer in optimizers])
    return norms


def _clip(optimizers: Sequence[AdamW], norms: Sequence[float]) -> None:
    long = [
        (optimizer.adapter.grads, optimizer.max_grad_norm / (norm + 1e-6))
        for optimizer, norm in zip(optimizers, norms, strict=True)
        if optimizer.max_grad_norm and norm > optimizer.max_grad_norm
    ]
    if long:
        torch._foreach_mul_([grads for grads, _ in long], [factor for _, factor in long])


def _follow(optimizers: Sequence[AdamW], rates: Sequence[float]) -> None:
    """Move the moments, and the values along them."""
    beta1, beta2 = BETAS
    grads, squares = ([o.adapter.grads for o in optimizers], [o.square for o in optimizers])
    torch._foreach_lerp_([o.mean for o in optimizers], grads, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
    deviations = torch._foreach_sqrt(squares)
    for optimizer in optimizers:
        optimizer.steps += 1
    torch._foreach_div_(deviations, [math.sqrt(1 - beta2**optimizer.steps) for optimizer in optimizers])
    torch._foreach_add_(deviations, EPSILON)
    values, means, parts, pace, decay = [], [], [], [], []
    for optimizer, rate, deviation in zip(optimizers, rates, deviations, strict=True):
        for part in optimizer.adapter.ranges:
            own_rate = rate * part.rate_ratio
            values.append(optimizer.adapter.values[part.first : part.last])
            means.append(optimizer.mean[part.first : part.last])
            parts.append(deviation[part.first : part.last])
            pace.append(-own_rate / (1 - beta1**optimizer.steps))
            decay.append(1 - own_rate * optimizer.weight_decay if part.decays else 1.0)
    if any(factor != 1 for factor in decay):
        torch._foreach_mul_(values, decay)
    torch._foreach_addcdiv_(values, means, parts, pace)


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
