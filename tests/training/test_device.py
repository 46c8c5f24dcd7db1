"""Which device and precision a run gets, and what counts as memory running out."""

from __future__ import annotations

import pytest
import torch

from loramill.errors import ConfigError, OutOfMemoryError
from loramill.training import device
from loramill.training.device import choose_device, has_fast_bf16, is_out_of_memory, named_memory_errors

CPU = torch.device("cpu")


def test_the_cpu_as_configured() -> None:
    chosen = choose_device("cpu", False)
    assert (chosen.device, chosen.dtype, chosen.precision) == (CPU, torch.float32, "float32")
    assert "as configured" in chosen.reason
    assert choose_device("cpu", True).dtype == torch.bfloat16


def test_automatic_precision_follows_the_hardware() -> None:
    chosen = choose_device("cpu", "auto")
    assert (chosen.dtype == torch.bfloat16) == has_fast_bf16(CPU)
    assert chosen.precision in chosen.reason


@pytest.mark.parametrize(("speedup", "dtype"), [(0.6, torch.float32), (1.1, torch.float32), (2.3, torch.bfloat16)])
def test_instructions_for_bfloat16_are_used_where_they_are_faster(
    speedup: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(device, "_bf16_speedup", lambda: speedup)
    assert choose_device("cpu", "auto").dtype == dtype


def test_the_speedup_of_bfloat16_is_measured() -> None:
    assert 0.01 < device._bf16_speedup() < 100


def test_automatic_choice_takes_the_best_device_there_is() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").device.type == expected


@pytest.mark.parametrize(("name", "expected"), [("auto", "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0")])
def test_of_several_processes_each_takes_a_gpu_of_its_own(
    name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "a GPU")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device(name, False).device == torch.device(expected)
    monkeypatch.setenv("LOCAL_RANK", "2")
    if name != "cuda:0":
        with pytest.raises(ConfigError, match="no cuda:2; it has cpu, cuda"):
            choose_device(name, False)


@pytest.mark.parametrize("name", ["cuda:99", "mps", "cuda"])
def test_a_device_that_is_not_there_is_a_problem_with_those_that_are(name: str) -> None:
    available = {"mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    if available.get(name):
        pytest.skip(f"this machine has {name}")
    with pytest.raises(ConfigError, match="cpu") as caught:
        choose_device(name)
    assert caught.value.problems[0].key == "training.device"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you ..."),
            True,
        ),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_signs_of_memory_that_ran_out(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_real_refusal_of_the_allocator_gets_a_name() -> None:
    with pytest.raises(OutOfMemoryError, match="while counting stars"), named_memory_errors("counting stars"):
        torch.empty(2**50, dtype=torch.float32)


def test_other_errors_keep_theirs() -> None:
    with pytest.raises(RuntimeError, match="shapes"), named_memory_errors("counting stars"):
        torch.empty(2, 3) @ torch.empty(2, 3)
