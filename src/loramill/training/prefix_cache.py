"""The layers that no adapter changes, computed once: their states are the same in every epoch and for every trial.

With adapters in the upper layers only, nothing below the first adapted one depends on what is learned. Their states are
kept in memory, or in a file of the run's folder that vanishes with the process, and steps start from them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from torch import Tensor

from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.engine.forward import states_before
from loramill.engine.module_base import ModuleBase
from loramill.engine.step import LabelledTokens, prediction_tokens
from loramill.engine.token_rows import PrefixStates, TokenRows, batches_of_tokens, ranges
from loramill.training.device import free_memory
from loramill.training.loop import TrialRun

MEMORY_SHARE = 0.25
"""Of the free memory that states may take; beyond it they go to the disk."""
DISK_SHARE = 0.5
"""Of the free disk that they may take; beyond it they are computed in every step."""
STATES_FILE = ".prefix-states"


def start_above_frozen_layers(
    base: FrozenBase, runs: Sequence[TrialRun], folder: Path, note: Callable[[str], None]
) -> None:
    """Give the rows of all runs the states above the layers that none of them adapts, where these are used again.

    Args:
        folder: where a file of states may lie.
        note: hears what was done, in a sentence; nothing when there is nothing to gain.
    """
    layer = min((run.trial.adapter.spec.layers or (0,))[0] for run in runs)
    uses = sum(max(1, math.ceil(run.trial.config.training.num_train_epochs)) for run in runs)
    if layer == 0 or uses < 2 or isinstance(base, ModuleBase):
        return
    bank = AdapterBank(base, [runs[0].trial.adapter])
    done: dict[int, LabelledTokens] = {}
    for run in runs:
        for data in (run.trial.train, run.evaluation):
            if id(data) not in done:
                prefix = compute_prefix(bank, data.rows, layer, folder)
                done[id(data)] = replace(data, rows=replace(data.rows, prefix=prefix))
    for run in runs:
        run.trial.train, run.evaluation = done[id(run.trial.train)], done[id(run.evaluation)]
    kept = [data.rows.prefix for data in done.values() if data.rows.prefix]
    size = sum(prefix.states.nbytes for prefix in kept) / 2**20
    below = "layer 0 is" if layer == 1 else f"layers 0 to {layer - 1} are"
    if kept:
        note(f"The {below} adapted by nobody: computed once and kept ({size:.0f} MiB).")


def compute_prefix(bank: AdapterBank, rows: TokenRows, layer: int, folder: Path) -> PrefixStates | None:
    """States of all tokens before ``layer``; ``None`` when there is no room for them."""
    base = bank.base
    states = _room_for(len(rows.token_ids), base, folder)
    if states is None:
        return None
    with torch.inference_mode():
        for chosen in batches_of_tokens(rows.lengths, prediction_tokens(base)):
            batch = base.batch_of([(0, rows, chosen)])
            places = ranges(rows.starts[:-1][chosen], rows.lengths[chosen])
            states[torch.from_numpy(places)] = states_before(bank, batch, layer)[: batch.tokens].to(states.device)
    return PrefixStates(layer, states)


def _room_for(tokens: int, base: FrozenBase, folder: Path) -> Tensor | None:
    """An empty ``[tokens, hidden]`` in memory, or in a file that has no name any more, or nothing."""
    shape = tokens, base.architecture.hidden_size
    size = math.prod(shape) * base.dtype.itemsize
    if base.device.type == "cuda" and size <= free_memory(base.device) * MEMORY_SHARE:
        return torch.empty(shape, dtype=base.dtype, device=base.device)
    if size <= psutil.virtual_memory().available * MEMORY_SHARE:
        return torch.empty(shape, dtype=base.dtype)
    if size > psutil.disk_usage(str(folder)).free * DISK_SHARE:
        return None
    file = folder / f"{STATES_FILE}-{os.getpid()}"
    try:
        return torch.from_file(str(file), shared=True, size=math.prod(shape), dtype=base.dtype).view(shape)
    finally:
        file.unlink(missing_ok=True)
