"""Which device computes, and in which type."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import psutil
import torch

from loramill.engine.linear import Linear
from loramill.errors import ConfigError, OutOfMemoryError, Problem

WORTHWHILE_SPEEDUP = 1.2
"""Of products, from which on bfloat16 is chosen: attention and what lies between products gain nothing from it."""

TIMED_PRODUCTS = 5
BOTH = (torch.float32, torch.bfloat16)

MEMORY_TRIES = 5
"""How often what ran out of memory is tried again with half of it."""

SIGNS_OF_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory",
)
"""In messages of torch's allocators, and of oneDNN, which says no more than this when it gets no memory."""


@dataclass(frozen=True)
class ComputeDevice:
    """A device with the type of the frozen weights and the activations.

    Attributes:
        reason: what was chosen and why, in one sentence.
    """

    device: torch.device
    dtype: torch.dtype
    reason: str

    @property
    def precision(self) -> str:
        return "bfloat16" if self.dtype == torch.bfloat16 else "float32"


def choose_device(
    name: str = "auto", bf16: Literal["auto"] | bool = "auto", *, why_float32: str | None = None
) -> ComputeDevice:
    """The named device, or the best there is: CUDA, then MPS, then the CPU.

    Args:
        name: ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:<index>``.
        bf16: ``auto`` means bfloat16 exactly where the hardware multiplies it faster than float32.
        why_float32: what rules bfloat16 out, whatever ``bf16`` says.

    Raises:
        ConfigError: the named device is not there.
    """
    device, why = _find(name)
    if why_float32:
        fast, precision = False, f"float32, {why_float32}"
    elif bf16 == "auto":
        fast = has_fast_bf16(device)
        precision = "bfloat16, which this hardware multiplies faster" if fast else "float32"
    else:
        fast = bf16
        precision = f"{'bfloat16' if bf16 else 'float32'}, as configured"
    dtype = torch.bfloat16 if fast else torch.float32
    return ComputeDevice(device, dtype, f"Computing on {describe(device)} ({why}) in {precision}.")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether products are faster in bfloat16: by the kind of GPU, and timed on a CPU that has instructions for it.

    Instructions alone do not say it: with AMX products are seven times as fast as in float32, with the AVX-512 ones of
    Zen 4 more than twice, and with those of the same name in an Intel Xeon whose AMX is hidden they take twice as long.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    has_instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(device.type == "cpu" and has_instructions) and _bf16_speedup() > WORTHWHILE_SPEEDUP


@functools.cache
def _bf16_speedup() -> float:
    """How many times as fast a frozen layer is in bfloat16 as in float32, here and now; takes some 50 ms."""
    layers = {dtype: Linear(torch.ones(1536, 384, dtype=dtype), torch.ones(1536, dtype=dtype)) for dtype in BOTH}
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in BOTH}
    with torch.inference_mode():
        for dtype in BOTH * (1 + TIMED_PRODUCTS):
            x = torch.ones(512, 384, dtype=dtype)
            started = time.perf_counter()
            layers[dtype].apply_frozen(x)
            seconds[dtype].append(time.perf_counter() - started)
    return min(seconds[torch.float32][1:]) / min(seconds[torch.bfloat16][1:])


def describe(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"the CPU with {threads} thread{'s' if threads != 1 else ''}"
    return "Apple silicon (mps)"


def free_memory(device: torch.device) -> int:
    """Bytes that a process can still take on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in SIGNS_OF_NO_MEMORY)


@contextlib.contextmanager
def named_memory_errors(doing: str) -> Iterator[None]:
    """Turn what torch or Python says when memory runs out into an error with a name and a way out.

    Raises:
        OutOfMemoryError: memory ran out while ``doing``.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"Out of memory while {doing}.",
            fix="Use a smaller base model, fewer rows or a machine with more memory; `loramill plan` estimates it.",
        ) from error


def _find(name: str) -> tuple[torch.device, str]:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = next(kind for kind in ("cuda", "mps", "cpu") if available[kind]) if name == "auto" else name
    device = torch.device(kind)
    if kind == "cuda" and available[kind]:
        device = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0")))  # several processes take one GPU each
    if not available[device.type] or (device.type == "cuda" and device.index >= torch.cuda.device_count()):
        known = ", ".join(kind for kind, there in available.items() if there)
        raise ConfigError(
            [Problem("training.device", name, f"this machine has no {device}; it has {known}, or say auto")]
        )
    if name != "auto":
        return device, "as configured"
    return device, "no GPU found" if kind == "cpu" else "found by itself"
