"""How fast this machine multiplies the matrices of a training step, and nothing else: the roof of any LoRA training.

    python benchmarks/training/roof.py [--tokens 800] [--seconds 2]

The products of MiniLM-L6 with its frozen weights, forward (``x W^T``) and back to the inputs (``g W``), in float32 and
bfloat16. Each is done as the engine can do it: by all cores together, and by each core for its share of the rows;
bfloat16 weights also as oneDNN lays them out. The fastest way counts. Prints GFLOP/s as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

HIDDEN, LAYERS = 384, 6
PRODUCTS = ((HIDDEN, 3 * HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 4 * HIDDEN), (4 * HIDDEN, HIDDEN))
"""Inputs and outputs of a layer's four products: query, key and value; attention output; up; down."""

PASSES = 10

Product = Callable[[Tensor], Tensor]


def step_flops(*, skips: bool) -> tuple[float, float]:
    """Floating-point operations of products with frozen weights in one step: for each token, and for each row of text.

    Args:
        skips: leave out what this engine does not do: the last layer for other tokens than the first, and gradients
            below the first layer's query, key and value.
    """
    qkv, output, up, down = (2.0 * inputs * outputs for inputs, outputs in PRODUCTS)
    layer = qkv + output + up + down
    if not skips:
        return 2 * LAYERS * layer, 0.0
    key_value, of_first_token = qkv * 2 / 3, qkv / 3 + output + up + down
    forward = (LAYERS - 1) * layer + key_value
    return forward + (LAYERS - 2) * layer + (layer - qkv) + key_value, 2 * of_first_token


def roof(dtype: torch.dtype, tokens: int, seconds: float) -> float:
    """GFLOP/s of the fastest way to do one layer's products, forward and back."""
    weights = [torch.randn(outputs, inputs).to(dtype) for inputs, outputs in PRODUCTS]
    both = [weight for own in weights for weight in (own, own.t().contiguous())]
    ways = [[plain(weight) for weight in both]]
    if dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        ways.append([packed(weight, tokens) for weight in both])
    cores = torch.get_num_threads()
    inputs = [torch.randn(tokens, weight.shape[1]).to(dtype) for weight in both]
    parts = [[x[core::cores].contiguous() for x in inputs] for core in range(cores)]
    passes = [median_seconds(partial(multiply, way, inputs), seconds) for way in ways]
    with ThreadPoolExecutor(cores, initializer=partial(torch.set_num_threads, 1)) as pool:
        passes += [median_seconds(lambda way=way: share(pool, way, parts), seconds) for way in ways]
    torch.set_num_threads(cores)
    return 2.0 * tokens * sum(weight.numel() for weight in both) / min(passes) / 1e9


def plain(weight: Tensor) -> Product:
    return lambda x: F.linear(x, weight)


def packed(weight: Tensor, tokens: int) -> Product:
    ready = torch.ops.mkldnn._reorder_linear_weight(weight, tokens)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, ready, None, "none", [], None)


def multiply(way: list[Product], inputs: list[Tensor]) -> None:
    """Ten passes."""
    for _ in range(PASSES):
        for product, x in zip(way, inputs, strict=True):
            product(x)


def share(pool: ThreadPoolExecutor, way: list[Product], parts: list[list[Tensor]]) -> None:
    """Ten passes, each core with its own rows."""
    list(pool.map(partial(multiply, way), parts))


def median_seconds(ten_passes: Callable[[], None], seconds: float) -> float:
    """Of one pass."""
    ten_passes()
    taken, until = list[float](), time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        ten_passes()
        taken.append((time.perf_counter() - start) / PASSES)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=800, help="of a batch")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each way")
    options = parser.parse_args()
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    with torch.inference_mode():
        found = {name: roof(dtype, options.tokens, options.seconds) for name, dtype in types.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
