"""Runs that the Transformers Trainer left: a ``trainer_state.json``, in the folder or in its checkpoints.

Nothing is unpickled: ``training_args.bin`` and ``optimizer.pt`` are never opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loramill.database import Database
from loramill.errors import CorruptFileError, NotFoundError
from loramill.experiments.folder import read_json
from loramill.experiments.importers import ForeignRun, Warn, add_foreign_runs, log
from loramill.experiments.models import Status


def import_trainer_folder(
    database: Database, results_folder: Path, source: Path, *, warn: Warn = log.warning
) -> list[str]:
    """Bring in a folder that the Transformers Trainer wrote, or each such folder directly inside ``source``.

    Args:
        warn: see ``add_foreign_runs``.

    Raises:
        NotFoundError: there is no ``trainer_state.json``.
        CorruptFileError: one cannot be read.
    """
    candidates = [source, *sorted(path for path in source.glob("*") if path.is_dir())]
    states = {folder: state for folder in candidates if (state := _newest_state(folder))}
    if source in states:
        states = {source: states[source]}
    if not states:
        raise NotFoundError(f"No trainer_state.json in {source}, its checkpoints or its folders.")
    return add_foreign_runs(
        database, results_folder, (_from_trainer(folder, state) for folder, state in states.items()), warn
    )


def _newest_state(folder: Path) -> Path | None:
    """``trainer_state.json`` of a folder, or of its furthest checkpoint."""
    if (folder / "trainer_state.json").is_file():
        return folder / "trainer_state.json"
    states = [state for state in folder.glob("checkpoint-*/trainer_state.json") if _step_of(state.parent) >= 0]
    return max(states, key=lambda state: _step_of(state.parent), default=None)


def _step_of(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _from_trainer(folder: Path, state_file: Path) -> ForeignRun:
    state = read_json(state_file)
    logged = state.get("log_history")
    history = [entry for entry in logged if isinstance(entry, dict)] if isinstance(logged, list) else []
    changed = datetime.fromtimestamp(state_file.stat().st_mtime, UTC)
    last: dict[str, Any] = {}
    for entry in history:
        last.update({key: value for key, value in entry.items() if key.startswith(("eval_", "train_"))})
    model = _trainer_model(state_file.parent)
    return ForeignRun(
        source="transformers",
        origin=f"transformers:{folder.resolve()}"[:255],
        name=folder.resolve().name,
        status=Status.SUCCESS,
        created_at=changed,
        finished_at=changed,
        parameters={
            "model.name": model,
            "training.per_device_train_batch_size": state.get("train_batch_size"),
            "training.num_train_epochs": state.get("num_train_epochs"),
            "training.logging_steps": state.get("logging_steps"),
        },
        metrics=last,
        events=[_trainer_event(entry, changed.timestamp()) for entry in history],
        model_name=model,
    )


def _trainer_event(entry: Mapping[str, Any], time: float) -> dict[str, Any]:
    """A line of ``log_history``; it has no time of its own."""
    known = {"time": time, "step": entry.get("step"), "epoch": entry.get("epoch")}
    metrics = {key: value for key, value in entry.items() if key.startswith("eval_")}
    if metrics:
        return {**known, "type": "eval", "metrics": metrics}
    numbers = {key: entry[key] for key in ("loss", "learning_rate", "grad_norm") if key in entry}
    return {**known, "type": "log", **numbers}


def _trainer_model(folder: Path) -> str:
    """The base model that an adapter's or a model's own config names."""
    for name, key in (("adapter_config.json", "base_model_name_or_path"), ("config.json", "_name_or_path")):
        for place in (folder, folder.parent):
            try:
                found = read_json(place / name).get(key)
            except CorruptFileError:
                continue
            if found:
                return str(found)
    return "unknown"
