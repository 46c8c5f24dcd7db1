"""How many trials fit in memory at once."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from loramill.engine.low_rank_adapter import Adapter
from loramill.sweeps.entry import Entry
from loramill.training.device import free_memory

TENSORS_A_TRIAL = 5
"""Values, gradients, two moments of AdamW and what it divides by, all of the size of the adapter."""
SHARE_FOR_TRIALS = 0.5
"""Of the memory that is free once the base is loaded; activations, evaluations and other programs get the rest."""


def split_by_memory(entries: Iterable[Entry], device: torch.device, memory_bytes: int | None = None) -> list[Entry]:
    """As many of the entries as fit at once, at least one; the iterable is not asked for more than one beyond.

    Activations do not count here: however many trials there are, a pass holds no more tokens at a time.
    """
    budget = memory_bytes if memory_bytes is not None else int(free_memory(device) * SHARE_FOR_TRIALS)
    chosen: list[Entry] = []
    for entry in entries:
        budget -= trial_bytes(entry.run.trial.adapter)
        if chosen and budget < 0:
            break
        chosen.append(entry)
    return chosen


def trial_bytes(adapter: Adapter) -> int:
    """Memory of one trial's adapter with what trains it."""
    return TENSORS_A_TRIAL * adapter.values.numel() * adapter.values.element_size()
