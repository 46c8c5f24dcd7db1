"""A real disk that is really full: a small file system of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_runs import loramill, start_loramill, write_config
from loramill.errors import DiskFullError
from loramill.training.checkpoint_manager import Checkpoint, CheckpointManager
from saving_trial import SavingTrial
from small_models import save_small_model
from small_runs import small_config, write_rows

pytestmark = pytest.mark.faults


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, *, leave: int = 0) -> Path:
    """Take all space but ``leave`` bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096):
            while shutil.disk_usage(disk).free >= leave + size:
                file.write(b"x" * size)
    return ballast


def test_a_verified_checkpoint_remains_however_little_space_is_left(small_disk: Path, tmp_path: Path) -> None:
    saving = SavingTrial(save_small_model("bert", tmp_path / "model"))
    refused = 0
    for kilobytes in range(0, 160, 12):
        artifacts = small_disk / "artifacts"
        manager, first = CheckpointManager(artifacts), Checkpoint(1, 0.5, 1.0)
        saving.save(manager, first)
        ballast = fill(small_disk, leave=kilobytes * 1024)
        try:
            saving.save(manager, Checkpoint(2, 0.6, 2.0))
        except DiskFullError:
            refused += 1
        last = CheckpointManager(artifacts).recover()
        assert last is not None
        saving.assert_restored(artifacts / last.name, last)
        ballast.unlink()
        saving.save(manager, Checkpoint(3, 0.6, 3.0))
        assert CheckpointManager(artifacts).recover() == Checkpoint(3, 0.6, 3.0)
        shutil.rmtree(artifacts)
    assert 2 <= refused <= 12


def test_a_run_that_fills_its_disk_says_so_and_can_be_resumed(small_disk: Path, tmp_path: Path) -> None:
    model, data = save_small_model("bert", tmp_path / "model"), write_rows(tmp_path / "rows")
    config = small_config(model, data, training__num_train_epochs=40, training__save_steps=3)
    process = start_loramill(small_disk, "train", write_config(tmp_path / "config.yaml", config), "--json")
    wait_for_a_checkpoint(process, small_disk)
    ballast = fill(small_disk)
    printed, said = process.communicate(timeout=120)

    document = json.loads(printed)
    assert process.returncode == 1, said
    assert document["status"] == "FAILURE"
    assert document["error"]["code"] == "disk_full"
    assert "error [disk_full]" in said
    assert "--resume" in said
    assert "Traceback" not in said

    ballast.unlink()
    resumed = loramill(small_disk, "train", "--resume", document["experiment_id"], "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert "Resumed from checkpoint-" in resumed.stderr
    assert json.loads(resumed.stdout)["status"] == "SUCCESS"


def wait_for_a_checkpoint(process: subprocess.Popen[str], home: Path) -> None:
    while not list(home.glob("results/*/artifacts/checkpoint-*")):
        if process.poll() is not None:
            pytest.fail(f"ended before the first checkpoint: {process.communicate()}")
        time.sleep(0.01)
