"""Checkpoints: written whole or not at all, verified before use, three kept.

``artifacts/checkpoint-<step>/`` is a folder that PEFT loads, with the optimizer's state and Transformers'
``trainer_state.json`` beside it. It is staged under a hidden name, flushed, hashed and renamed; ``manifest.json`` holds
the hash of every file. After each save just these stay: the best by the metric, the last, and the one reached in the
shortest training time. ``checkpoints.json`` says which is which.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from loramill.errors import CorruptFileError
from loramill.files import named_storage_errors, publish_folder, write_json

MANIFEST_FILE = "manifest.json"
INDEX_FILE = "checkpoints.json"


@dataclass(frozen=True)
class Checkpoint:
    """One saved state.

    Attributes:
        metric: value of the choosing metric, more is better; ``None`` when it was not evaluated at this step.
        seconds: training time until this step.
    """

    step: int
    metric: float | None
    seconds: float

    @property
    def name(self) -> str:
        return f"checkpoint-{self.step}"


class CheckpointManager:
    """The checkpoints of one run.

    Args:
        artifacts: folder that holds them.
        writes: whether this process is the one that writes them; the others of a group just remember.
    """

    def __init__(self, artifacts: Path, *, writes: bool = True) -> None:
        self._artifacts, self._writes = artifacts, writes
        self._known: list[Checkpoint] = []

    def path(self, checkpoint: Checkpoint) -> Path:
        return self._artifacts / checkpoint.name

    @property
    def best(self) -> Checkpoint | None:
        """The earliest of those with the best metric."""
        measured = [checkpoint for checkpoint in self._known if checkpoint.metric is not None]
        return max(measured, key=lambda checkpoint: (checkpoint.metric, -checkpoint.step), default=None)

    @property
    def last(self) -> Checkpoint | None:
        return max(self._known, key=lambda checkpoint: checkpoint.step, default=None)

    @property
    def fastest(self) -> Checkpoint | None:
        return min(self._known, key=lambda checkpoint: (checkpoint.seconds, checkpoint.step), default=None)

    def save(self, checkpoint: Checkpoint, write: Callable[[Path], None]) -> Path:
        """Write a checkpoint through ``write(folder)``, then drop those that no rule keeps.

        Raises:
            DiskFullError, UnwritableError, StorageError: the checkpoints from before are untouched.
        """
        final = self.path(checkpoint)
        if not self._writes:
            self._known = [known for known in self._known if known.step != checkpoint.step] + [checkpoint]
            return final
        staged = self._artifacts / f".{checkpoint.name}.part"
        with named_storage_errors(final):
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
        try:
            write(staged)
            write_json(staged / MANIFEST_FILE, {"checkpoint": asdict(checkpoint), "files": _hashes(staged)})
            publish_folder(staged, final)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        self._known = [known for known in self._known if known.step != checkpoint.step] + [checkpoint]
        self._keep_three()
        return final

    def recover(self) -> Checkpoint | None:
        """Learn what an earlier process left: verified checkpoints stay, remains of interrupted saves go.

        A kill right after a checkpoint was published left one too many, and an index without it.

        Returns:
            The last checkpoint that is whole.
        """
        for remains in self._artifacts.glob(".checkpoint*") if self._writes else ():
            _restore_or_drop(remains)
        self._known = []
        for folder in self._artifacts.glob("checkpoint-*"):
            try:
                self._known.append(verify_checkpoint(folder))
            except CorruptFileError:
                if self._writes:
                    shutil.rmtree(folder, ignore_errors=True)
        if self._writes and self._known:
            self._keep_three()
        return self.last

    def _keep_three(self) -> None:
        kept = {role: getattr(self, role) for role in ("best", "last", "fastest")}
        index = {role: checkpoint.name if checkpoint else None for role, checkpoint in kept.items()}
        write_json(self._artifacts / INDEX_FILE, index)
        for checkpoint in list(self._known):
            if checkpoint.name not in index.values():
                shutil.rmtree(self.path(checkpoint), ignore_errors=True)
                self._known.remove(checkpoint)


def verify_checkpoint(folder: Path) -> Checkpoint:
    """Check every file of a checkpoint against its manifest.

    Raises:
        CorruptFileError: a file is missing, changed, or the manifest cannot be read.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        if manifest["files"] != _hashes(folder):
            raise CorruptFileError(f"{folder} differs from its manifest.", fix="Resume from another checkpoint.")
        checkpoint = Checkpoint(**manifest["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFileError(f"{folder} has no manifest that can be read: {error}") from error
    if checkpoint.name != folder.name:
        raise CorruptFileError(f"{folder} is a copy of {checkpoint.name}.", fix="Give it its name back.")
    return checkpoint


def _hashes(folder: Path) -> dict[str, str]:
    """BLAKE3 of every file but the manifest, by relative path."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != MANIFEST_FILE)
    return {str(file.relative_to(folder)): blake3(file.read_bytes()).hexdigest() for file in files}


def _restore_or_drop(remains: Path) -> None:
    """``publish_folder`` retires an old folder before it renames the new one: a kill between the two is undone here."""
    final = remains.with_name(remains.name.removeprefix(".").removesuffix(".retired"))
    if remains.name.endswith(".retired") and not final.exists():
        remains.rename(final)
    elif remains.is_dir():
        shutil.rmtree(remains, ignore_errors=True)
    else:
        remains.unlink(missing_ok=True)
