"""A save is killed, or the disk is full, at each of its writes, fsyncs, renames and removals."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import forked
from fault_injection import Fault, FaultInjector
from loramill.errors import DiskFullError
from loramill.training.checkpoint_manager import Checkpoint, CheckpointManager
from saving_trial import SavingTrial, save_next
from small_models import save_small_model

pytestmark = pytest.mark.faults
SAVED = [Checkpoint(1, 0.9, 1.0), Checkpoint(2, 0.5, 2.0)]
NEXT = Checkpoint(3, 0.6, 3.0)
"""Saving it removes the second: the first is the best and the fastest."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model("bert", tmp_path_factory.mktemp("model"))


@pytest.fixture
def artifacts(model: Path, tmp_path: Path) -> Path:
    """Two checkpoints."""
    saving, manager = SavingTrial(model), CheckpointManager(tmp_path / "artifacts")
    for checkpoint in SAVED:
        saving.save(manager, checkpoint)
    return tmp_path / "artifacts"


@pytest.mark.parametrize("checkpoint", [NEXT, SAVED[1]], ids=["a new step", "a step again"])
@pytest.mark.parametrize("fault", ["kill", "disk full"])
def test_a_verified_checkpoint_remains_wherever_a_save_ends(
    fault: Fault, checkpoint: Checkpoint, model: Path, artifacts: Path
) -> None:
    calls = calls_of_a_save(model, artifacts, checkpoint)
    assert {"write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir"} <= set(calls)
    for number, call in enumerate(calls, start=1):
        copy = shutil.copytree(artifacts, artifacts.with_name(f"{number}-{call}"))
        end_save(fault, number, checkpoint, model, copy)

        saving, manager = SavingTrial(model), CheckpointManager(copy)
        last = manager.recover()
        assert last in (SAVED[1], checkpoint)
        saving.assert_restored(manager.path(last), last)
        saving.assert_restored(copy / "checkpoint-1", SAVED[0])
        assert (manager.best, manager.fastest) == (SAVED[0], SAVED[0])

        saving.save(manager, Checkpoint(4, 0.7, 4.0))
        assert {path.name for path in copy.iterdir()} == {"checkpoints.json", "checkpoint-1", "checkpoint-4"}


def calls_of_a_save(model: Path, artifacts: Path, checkpoint: Checkpoint) -> list[str]:
    saving, manager = SavingTrial(model), CheckpointManager(shutil.copytree(artifacts, artifacts.with_name("counted")))
    manager.recover()
    with FaultInjector().installed() as injector:
        saving.save(manager, checkpoint)
    return injector.calls


def end_save(fault: Fault, number: int, checkpoint: Checkpoint, model: Path, artifacts: Path) -> None:
    """Let a save end at its n-th call: a kill in a process of its own, a full disk in this one."""
    if fault == "kill":
        assert forked.run(save_next, model, artifacts, fault, number, checkpoint) == forked.KILLED
        return
    try:
        save_next(model, artifacts, fault, number, checkpoint)
    except DiskFullError as error:
        assert "Free space" in error.fix
