"""Which checkpoints are kept, and what counts as whole."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramill.errors import CorruptFileError
from loramill.training.checkpoint_manager import Checkpoint, CheckpointManager, verify_checkpoint


def write(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"weights" * 100)
    (folder / "progress.json").write_text("{}")


def names(artifacts: Path) -> set[str]:
    return {path.name for path in artifacts.iterdir()}


MEASURED = st.lists(st.tuples(st.none() | st.sampled_from([0.1, 0.5, 0.9]), st.floats(0.1, 9)), min_size=1, max_size=6)


@settings(max_examples=20)
@given(MEASURED)
def test_after_every_save_just_the_best_the_last_and_the_fastest_are_there(saves: list) -> None:
    with tempfile.TemporaryDirectory() as folder:
        artifacts = Path(folder)
        manager, seconds = CheckpointManager(artifacts), 0.0
        done: list[Checkpoint] = []
        for step, (metric, more) in enumerate(saves, start=1):
            seconds += more
            done.append(Checkpoint(step, metric, seconds))
            assert manager.save(done[-1], write) == artifacts / f"checkpoint-{step}"
            measured = [one for one in done if one.metric is not None]
            best = max(measured, key=lambda one: (one.metric, -one.step)) if measured else None
            kept = {"best": best, "last": done[-1], "fastest": done[0]}
            assert (manager.best, manager.last, manager.fastest) == tuple(kept.values())
            index = {role: one.name if one else None for role, one in kept.items()}
            assert json.loads((artifacts / "checkpoints.json").read_text()) == index
            assert names(artifacts) == {"checkpoints.json", *filter(None, index.values())}
        again = CheckpointManager(artifacts)
        assert again.recover() == done[-1]
        assert (again.best, again.last, again.fastest) == (manager.best, manager.last, manager.fastest)


def test_a_kill_between_a_save_and_what_follows_it_is_made_good(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save(Checkpoint(1, 0.9, 1.0), write)
    manager.save(Checkpoint(2, 0.5, 2.0), write)
    shutil.copytree(tmp_path, tmp_path / "before")
    manager.save(Checkpoint(3, 0.6, 3.0), write)
    for name in ("checkpoint-2", "checkpoints.json"):
        (tmp_path / "before" / name).rename(tmp_path / name)
    shutil.rmtree(tmp_path / "before")
    assert CheckpointManager(tmp_path).recover() == Checkpoint(3, 0.6, 3.0)
    assert names(tmp_path) == {"checkpoints.json", "checkpoint-1", "checkpoint-3"}
    index = json.loads((tmp_path / "checkpoints.json").read_text())
    assert index == {"best": "checkpoint-1", "last": "checkpoint-3", "fastest": "checkpoint-1"}


def test_nothing_to_recover_is_no_checkpoint(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    assert manager.recover() is manager.best is manager.last is manager.fastest is None


def test_a_failing_write_leaves_what_was_there(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save(Checkpoint(1, 0.5, 1.0), write)

    def fail(folder: Path) -> None:
        write(folder)
        raise ValueError("no state")

    with pytest.raises(ValueError, match="no state"):
        manager.save(Checkpoint(2, 0.6, 2.0), fail)
    assert names(tmp_path) == {"checkpoints.json", "checkpoint-1"}
    assert manager.last == CheckpointManager(tmp_path).recover() == Checkpoint(1, 0.5, 1.0)


def test_a_step_saved_again_replaces_the_old_one(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save(Checkpoint(1, None, 1.0), write)
    manager.save(Checkpoint(1, 0.7, 1.5), lambda folder: (folder / "other").write_text("new") and None)
    assert verify_checkpoint(tmp_path / "checkpoint-1") == Checkpoint(1, 0.7, 1.5)
    assert (tmp_path / "checkpoint-1" / "other").read_text() == "new"


def change_a_byte(folder: Path) -> None:
    content = bytearray((folder / "adapter_model.safetensors").read_bytes())
    content[50] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a byte": change_a_byte,
    "cut off": lambda folder: (folder / "progress.json").write_text(""),
    "a file less": lambda folder: (folder / "progress.json").unlink(),
    "a file more": lambda folder: (folder / "more").write_text("x"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "manifest cut off": lambda folder: (folder / "manifest.json").write_text('{"files": {'),
    "manifest is a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "manifest is nested": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    "of another step": lambda folder: (
        shutil.copytree(folder, folder.with_name("checkpoint-3")) and shutil.rmtree(folder)
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_found_and_the_one_before_is_used(
    damage: Callable[[Path], object], tmp_path: Path
) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save(Checkpoint(1, 0.5, 1.0), write)
    manager.save(Checkpoint(2, 0.6, 2.0), write)
    damage(tmp_path / "checkpoint-2")
    for folder in tmp_path.glob("checkpoint-[23]"):
        with pytest.raises(CorruptFileError):
            verify_checkpoint(folder)
    assert CheckpointManager(tmp_path).recover() == Checkpoint(1, 0.5, 1.0)
    assert names(tmp_path) == {"checkpoints.json", "checkpoint-1"}


def test_remains_of_an_interrupted_save_are_cleared_and_a_retired_checkpoint_comes_back(tmp_path: Path) -> None:
    CheckpointManager(tmp_path).save(Checkpoint(4, 0.5, 1.0), write)
    (tmp_path / "checkpoint-4").rename(tmp_path / ".checkpoint-4.retired")
    (tmp_path / ".checkpoint-4.part").mkdir()
    assert CheckpointManager(tmp_path).recover() == Checkpoint(4, 0.5, 1.0)
    assert names(tmp_path) == {"checkpoints.json", "checkpoint-4"}
