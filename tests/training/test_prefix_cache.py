"""Adapters in the upper layers only: what lies below is computed once, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from loramill.engine import forward
from loramill.training import prefix_cache
from small_models import save_small_model
from small_runs import small_config, train, write_rows


def run(home: Path, **changes: Any) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    from safetensors.torch import load_file

    events: list[dict[str, Any]] = []
    config = small_config(
        save_small_model("bert", home / "model"),
        write_rows(home / "rows"),
        **{"lora__layers_to_transform": [1, 2], "training__num_train_epochs": 3, **changes},
    )
    _, folder = train(config, home, on_event=events.append)
    return load_file(folder.final_model / "adapter_model.safetensors"), events


@pytest.mark.parametrize("changes", [{}, {"lora__layers_to_transform": [2]}, {"lora__lora_dropout": 0.2}])
def test_a_run_that_starts_above_frozen_layers_gives_the_same_adapter(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, events = run(tmp_path, **changes)
    said = [event["message"] for event in events if "computed once" in event.get("message", "")]
    assert len(said) == 1
    monkeypatch.setattr(prefix_cache, "MEMORY_SHARE", 0)
    monkeypatch.setattr(prefix_cache, "DISK_SHARE", 0)
    plain, events = run(tmp_path, **changes)
    assert not any("computed once" in event.get("message", "") for event in events)
    for name, tensor in plain.items():
        torch.testing.assert_close(saved[name], tensor, rtol=1e-4, atol=1e-5)


def test_without_memory_the_states_lie_in_a_file_that_nobody_has_to_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory, _ = run(tmp_path)
    monkeypatch.setattr(prefix_cache, "MEMORY_SHARE", 0)
    on_disk, events = run(tmp_path)
    assert any("computed once" in event.get("message", "") for event in events)
    assert all(torch.equal(in_memory[name], on_disk[name]) for name in in_memory)
    assert not list((tmp_path / "results").rglob(f"{prefix_cache.STATES_FILE}*"))


def test_the_lower_layers_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers: list[int] = []
    once = forward._EncoderPass.layer

    def counted(self: Any, index: int, x: torch.Tensor) -> torch.Tensor:
        layers.append(index)
        return once(self, index, x)

    monkeypatch.setattr(forward._EncoderPass, "layer", counted)
    run(tmp_path)
    steps = 3 * 6
    assert layers.count(0) <= 4  # training rows, evaluation rows; reloading compares once more
    assert layers.count(1) >= steps
