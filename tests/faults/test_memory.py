"""Memory that really runs out: a limit on the address space of a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loramill.config.load import dump_config
from small_models import save_small_model
from small_runs import new_folder, small_config

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="the limit and /proc are Linux's"),
]
BATCH = 256
ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).parent.parent),
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}
"""What malloc keeps for itself would count as taken, since the limit is on addresses."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for texts of 120 tokens, and as many rows as one large batch."""
    home = tmp_path_factory.mktemp("memory")
    save_small_model("bert", home / "model", max_position_embeddings=128)
    (home / "rows").mkdir()
    rows = [{"text": f"{'a' if n % 2 else 'b'} " * 110 + "c " * (n % 9), "label": n % 2} for n in range(BATCH)]
    for split, chosen in (("train", rows), ("validation", rows[:8])):
        (home / "rows" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return home


def outcome(home: Path, megabytes: int | None) -> dict[str, Any]:
    config = small_config(
        home / "model",
        home / "rows",
        data__max_length=120,
        training__per_device_train_batch_size=BATCH,
        training__num_train_epochs=2,
        training__logging_steps=1,
        training__learning_rate=1e-3,
    )
    folder = new_folder(home / "results")
    folder.write_config(dump_config(config))
    child = f"from small_runs import *; train_with_little_memory(Path({str(home)!r}), {folder.id!r}, {megabytes})"
    subprocess.run([sys.executable, "-c", child], env=ENVIRONMENT, check=True, capture_output=True)
    result: dict[str, Any] = json.loads((folder.path / "outcome.json").read_text(encoding="utf-8"))
    return result


def messages(result: dict[str, Any]) -> list[str]:
    return [event["message"] for event in result["events"] if "Out of memory" in event.get("message", "")]


def test_out_of_memory_halves_the_micro_batch_and_learns_the_same(home: Path) -> None:
    free, little = outcome(home, None), outcome(home, 120)
    assert (free["status"], little["status"]) == ("finished", "finished")
    assert messages(free) == []
    assert messages(little)[0] == "Out of memory: going on with 128 rows in a forward pass, same effective batch."
    losses = [[event["loss"] for event in run["events"] if event["type"] == "log"] for run in (free, little)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert len(losses[0]) == 2


def test_after_five_tries_it_fails_and_says_what_to_change(home: Path) -> None:
    result = outcome(home, 4)
    assert (result["status"], result["code"]) == ("failed", "out_of_memory")
    assert len(messages(result)) == 5
    assert "8 rows in a forward pass" in result["message"]
    assert "data.max_length" in result["fix"]
