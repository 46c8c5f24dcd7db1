"""Linear layers of the frozen base, and how the hardware likes their weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

PACKING_TOKENS = 512
"""Rows for which oneDNN lays out a weight; other numbers of rows are right too, and hardly slower."""

PACKED_ROW_MULTIPLE = 32
"""oneDNN plans a product anew for every number of rows that it has not seen, which takes a tenth of the product itself.

Batches of texts hardly ever have the same number of tokens twice; rounded up, they share a few dozen plans.
"""


CUDA_ROW_MULTIPLE = 256
"""cuBLAS looks for a kernel anew for every number of rows that it has not seen, which takes longer than to run it."""


@dataclass(frozen=True)
class Linear:
    """Weight ``[out, in]`` and bias ``[out]``."""

    weight: Tensor
    bias: Tensor

    def apply_frozen(self, x: Tensor) -> Tensor:
        """``x W^T + b``, ``[rows, in]`` to ``[rows, out]``, where nobody asks for gradients of the layer."""
        if self._packed is None:
            return F.linear(x, self.weight, self.bias)
        return _packed_product(x, self._packed, self.bias)

    def input_gradient(self, grad_y: Tensor) -> Tensor:
        """``grad_y W``, ``[rows, out]`` to ``[rows, in]``."""
        if self._packed_transpose is None:
            return grad_y @ self.weight
        return _packed_product(grad_y, self._packed_transpose, None)

    @property
    def row_multiple(self) -> int:
        """How many rows at a time the hardware likes."""
        if self.weight.device.type == "cuda":
            return CUDA_ROW_MULTIPLE
        return 1 if self._packed is None else PACKED_ROW_MULTIPLE

    def lay_out(self) -> None:
        """Do now what is otherwise done at the first use, so that copies of this process need not."""
        _ = self._packed, self._packed_transpose

    @cached_property
    def _packed(self) -> Tensor | None:
        return _pack(self.weight)

    @cached_property
    def _packed_transpose(self) -> Tensor | None:
        return _pack(self.weight.t())


def _pack(weight: Tensor) -> Tensor | None:
    """The weight in the order in which the CPU's bfloat16 units read it.

    PyTorch's own linear layer reorders a bfloat16 weight at every call, which costs a tenth to a quarter of the product
    for batches of short texts. In float32 there is nothing to gain.
    """
    ready = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _cpu_multiplies_bfloat16()
    if not ready or weight.requires_grad:
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKING_TOKENS)
    return packed


def _packed_product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, bias, "none", [], None)
    return y


def _cpu_multiplies_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
