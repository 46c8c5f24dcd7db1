"""A trial's state in a checkpoint folder, and back: adapter, optimizer, progress. Nothing is pickled.

Dropout masks and the order of the rows depend on the seed and the step, so no random state needs saving.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from loramill.engine.base import FrozenBase
from loramill.engine.peft_format import load_adapter, save_adapter
from loramill.errors import LoramillError, ResumeError
from loramill.files import write_atomic, write_json
from loramill.training.trial import Trial

OPTIMIZER_FILE = "optimizer.safetensors"
PROGRESS_FILE = "progress.json"
TRAINER_STATE_FILE = "trainer_state.json"


def save_state(folder: Path, base: FrozenBase, trial: Trial, *, base_name: str) -> None:
    """Write everything that an exact resume needs."""
    save_adapter(folder, base, trial.adapter, base_name=base_name)
    state = {name: tensor.contiguous().cpu() for name, tensor in trial.optimizer.state().items()}
    write_atomic(folder / OPTIMIZER_FILE, save(state))
    write_json(folder / TRAINER_STATE_FILE, trial.trainer_state())
    write_json(folder / PROGRESS_FILE, trial.progress_state())


def load_state(folder: Path, base: FrozenBase, trial: Trial) -> None:
    """Put a trial back to where ``save_state`` found it.

    Raises:
        ResumeError: the checkpoint does not fit the trial.
    """
    try:
        load_values(folder, base, trial)
        trial.optimizer.load_state(load_file(folder / OPTIMIZER_FILE))
        history = json.loads((folder / TRAINER_STATE_FILE).read_text(encoding="utf-8"))["log_history"]
        trial.restore_progress(json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8")), history)
    except (LoramillError, SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ResumeError(
            f"{folder} cannot be resumed from: {error}", fix="Start anew, or restore the config that it was made with."
        ) from error


def load_values(folder: Path, base: FrozenBase, trial: Trial) -> None:
    """Only the adapter's values of a checkpoint."""
    own = trial.adapter
    own.copy_from(load_adapter(folder, base, labels=own.spec.labels, dtype=own.values.dtype))
