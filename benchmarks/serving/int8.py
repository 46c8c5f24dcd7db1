"""Would int8 be faster, and as good? Static int8 on the CPU beside bfloat16 and float32, on the run's own eval set.

    python benchmarks/serving/int8.py                    # 2,000 reviews, 5 rounds
    python benchmarks/serving/int8.py --texts 400 --rounds 1

One core, forward passes alone, batches of similar length; the kinds take turns, batch by batch. Weights are int8 for
each output channel; inputs are uint8 with ranges of 400 training texts, outliers moved into the weights (SmoothQuant,
arXiv:2211.10438). ``--keep`` feed-forward outputs, those of the first layers, stay in bfloat16: their inputs have
outliers that no range fits. The trained adapter is merged before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from workload import DEFAULT_HOME, heading, spread, trained_model

from loramill.data.samples import load_sample
from loramill.engine.base import FrozenBase, LayerWeights
from loramill.engine.batching import build_batch
from loramill.engine.forward import classify
from loramill.engine.linear import Linear
from loramill.engine.serving_bank import ServingBank, merge_adapter
from loramill.engine.token_rows import IntArray, TokenRows, batches_of_tokens
from loramill.inference.saved_model import SavedModel
from loramill.inference.served_model import LoadedBase, ServedModel

CPU = torch.device("cpu")
BATCH_TOKENS = 1024
CALIBRATION_TEXTS = 400
SMOOTHING = 0.5
ROW_MULTIPLE = 16
LINEARS = ("qkv", "attention_output", "up", "down")
Replace = Callable[[int, str, Linear], Linear]


@dataclass(frozen=True)
class Watched(Linear):
    """A layer that remembers the least and the greatest value of each of its inputs, ``[in]``."""

    seen: dict[str, Tensor]

    def apply_frozen(self, x: Tensor) -> Tensor:
        low, high = x.amin(0), x.amax(0)
        self.seen["low"] = torch.minimum(self.seen.get("low", low), low)
        self.seen["high"] = torch.maximum(self.seen.get("high", high), high)
        return torch.nn.functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Int8(Linear):
    """``x W^T + b`` in int8, float32 in and out.

    Attributes:
        packed: int8 weight as oneDNN reads it; ``weight_scale``, ``weight_zero``: ``[out]``.
        scale, zero: of the input, once each channel is multiplied by ``factor`` ``[in]``, which includes ``1 / scale``.
    """

    packed: Tensor
    weight_scale: Tensor
    weight_zero: Tensor
    scale: float
    zero: int
    factor: Tensor
    rounding: Tensor

    @classmethod
    def of(cls, linear: Linear, seen: Mapping[str, Tensor]) -> Int8:
        low, high = seen["low"].clamp(max=0), seen["high"].clamp(min=0)
        size = torch.maximum(-low, high).clamp(min=1e-5)
        smooth = size**SMOOTHING / linear.weight.abs().amax(0).clamp(min=1e-5) ** (1 - SMOOTHING)
        low, high = (low / smooth).min(), (high / smooth).max()
        scale = float((high - low) / 255)
        zero = round(float(-low) / scale)
        weight = linear.weight * smooth
        weight_scale = weight.abs().amax(1) / 127
        rounded = (weight / weight_scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        return cls(
            linear.weight,
            linear.bias,
            packed=torch.ops.onednn.qlinear_prepack(rounded, [512, weight.shape[1]]),
            weight_scale=weight_scale,
            weight_zero=torch.zeros(len(weight), dtype=torch.int64),
            scale=scale,
            zero=zero,
            factor=1 / (smooth * scale),
            rounding=torch.tensor([zero + 0.5]),
        )

    def apply_frozen(self, x: Tensor) -> Tensor:
        rounded = torch.addcmul(self.rounding, x, self.factor).clamp_(0, 255).to(torch.uint8)
        weights = (self.packed, self.weight_scale, self.weight_zero, self.bias)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, self.scale, self.zero, *weights, 1.0, 0, torch.float32, "none", [], ""
        )
        return y


@dataclass(frozen=True)
class InBfloat16(Linear):
    """A layer that is too sensitive for int8, float32 in and out."""

    exact: Linear

    def apply_frozen(self, x: Tensor) -> Tensor:
        return self.exact.apply_frozen(x.bfloat16()).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=int, default=2, help="layers whose feed-forward output stays in bfloat16")
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME)
    options = parser.parse_args()
    torch.set_num_threads(1)
    saved = SavedModel.read(trained_model(options.home))
    banks, base = merged_models(saved)
    splits = load_sample("movie_reviews", options.home / "data")
    calibration = base.tokenize(splits["train"].texts[:CALIBRATION_TEXTS], None, max_length=128)
    banks["int8"] = int8_bank(banks["float32"], calibration, keep=0)
    banks[f"int8, {options.keep} outputs in bf16"] = int8_bank(banks["float32"], calibration, keep=options.keep)
    texts, labels = splits["validation"].texts[: options.texts], splits["validation"].labels[: options.texts]
    rows = base.tokenize(texts, None, max_length=128)
    seconds: dict[str, list[float]] = {name: [] for name in banks}
    logits: dict[str, np.ndarray] = {}
    for _ in range(options.rounds):
        taken, logits = in_turn(banks, rows)
        for name, value in taken.items():
            seconds[name].append(value)
    print(table(seconds, logits, np.asarray(labels)))


def merged_models(saved: SavedModel) -> tuple[dict[str, ServingBank], LoadedBase]:
    banks = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        base = LoadedBase.load(saved.labels.base_model, device=CPU, dtype=dtype)
        banks[name] = merge_adapter(base.frozen, ServedModel.load(saved, base).adapter)
    return banks, base


def int8_bank(exact: ServingBank, calibration: TokenRows, *, keep: int) -> ServingBank:
    """The merged float32 model with its linear layers in int8."""
    ranges: dict[tuple[int, str], dict[str, Tensor]] = {}

    def watch(layer: int, name: str, linear: Linear) -> Linear:
        return Watched(linear.weight, linear.bias, ranges.setdefault((layer, name), {}))

    def quantise(layer: int, name: str, linear: Linear) -> Linear:
        if name == "down" and layer < keep:
            lower = Linear(linear.weight.bfloat16(), linear.bias.bfloat16())
            return InBfloat16(linear.weight, linear.bias, lower)
        seen = ranges[layer, name]
        return Int8.of(linear, seen) if seen else linear  # nobody asks the last layer for query, key and value at once

    watched = ServingBank(replaced(exact.base, watch), exact.adapters)
    in_turn({"": watched}, calibration)
    return ServingBank(replaced(exact.base, quantise), exact.adapters)


def replaced(base: FrozenBase, change: Replace) -> FrozenBase:
    layers = [
        replace(weights, **{name: change(index, name, getattr(weights, name)) for name in LINEARS})
        for index, weights in enumerate(base.layers)
    ]
    changed = replace(base, layers=tuple[LayerWeights, ...](layers))
    last = len(layers) - 1
    for name in ("last_query", "last_key_value"):  # made from the last layer's weights, where nobody sets them
        changed.__dict__[name] = change(last, name, getattr(base, name))
    return changed


@torch.inference_mode()
def in_turn(banks: Mapping[str, ServingBank], rows: TokenRows) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """CPU seconds and logits ``[texts, labels]`` of every kind; each batch goes through all of them."""
    seconds = dict.fromkeys(banks, 0.0)
    logits = {name: np.empty((len(rows), 2), np.float32) for name in banks}
    for number, chosen in enumerate(batches_of_tokens(rows.lengths, BATCH_TOKENS)):
        for name in list(banks) if number % 2 else list(reversed(banks)):
            start = time.thread_time()
            logits[name][chosen] = forward(banks[name], rows, chosen)
            seconds[name] += time.thread_time() - start
    return seconds, logits


def forward(bank: ServingBank, rows: TokenRows, chosen: IntArray) -> np.ndarray:
    batch = build_batch([(0, rows, chosen)], device=CPU, multiple=ROW_MULTIPLE)
    found: np.ndarray = classify(bank, batch)[0].numpy()
    return found


def table(seconds: Mapping[str, list[float]], logits: Mapping[str, np.ndarray], labels: np.ndarray) -> str:
    lines = [heading(), "", "| | texts a CPU second | x bfloat16 | accuracy | labels that differ from float32 |"]
    lines.append("|---|---|---|---|---|")
    exact = logits["float32"].argmax(1)
    for name, own in seconds.items():
        rates = [len(labels) / value for value in own]
        ratios = [other / value for other, value in zip(seconds["bfloat16"], own, strict=True)]
        found = logits[name].argmax(1)
        shares = (f"{(found == labels).mean():.4f}", f"{(found != exact).mean():.2%}")
        lines.append(f"| {name} | {spread(rates)} | {spread(ratios, '{:.2f}')} | {' | '.join(shares)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
