"""The base that a model needs, and the adapters that fit it: the engine's own, or those of a Transformers module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loramill.engine.base import FrozenBase, load_base
from loramill.engine.low_rank_adapter import Adapter, AdapterSpec
from loramill.engine.module_base import ModuleAdapter, ModuleBase, load_module_base
from loramill.engine.module_family import lacks_fast_path


@dataclass(frozen=True)
class BaseNeeds:
    """What a run asks of its base beyond plain LoRA.

    Attributes:
        dora: DoRA (arXiv:2402.09353), which PEFT computes.
        base_dropout: the dropout of the base itself while training.
    """

    dora: bool = False
    base_dropout: bool = False

    @classmethod
    def of_saved(cls, adapter_config: Mapping[str, Any]) -> BaseNeeds:
        """What a saved adapter asks for."""
        return cls(dora=bool(adapter_config.get("use_dora")))


def why_own_module(config: Mapping[str, object], needs: BaseNeeds) -> str | None:
    """Why a run goes through the base's own Transformers module, in a sentence; ``None`` on the fast path."""
    if needs.dora:
        return "DoRA is computed by PEFT."
    if needs.base_dropout:
        return "The dropout of the base is its own module's."
    return lacks_fast_path(config)


def load_any_base(
    config: Mapping[str, object],
    folder: Path,
    weights: Sequence[Path],
    *,
    dtype: torch.dtype,
    device: torch.device,
    needs: BaseNeeds,
) -> FrozenBase:
    """The base on the fast path where there is one, else through its own module.

    Raises:
        ModelError: it cannot be loaded either way.
    """
    if why_own_module(config, needs) is None:
        return load_base(config, weights, dtype=dtype, device=device)
    return load_module_base(config, folder, dtype=dtype, device=device, base_dropout=needs.base_dropout)


def new_adapter(base: FrozenBase, spec: AdapterSpec, *, dtype: torch.dtype = torch.float32) -> Adapter:
    """An adapter with the initial values of the spec's seed."""
    if isinstance(base, ModuleBase):
        return ModuleAdapter(base, spec, dtype=dtype)
    return Adapter(base, spec, dtype=dtype)
