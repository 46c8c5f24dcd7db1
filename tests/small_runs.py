"""Small data sets that a random encoder can learn, and whole training runs on them in a second or two."""

from __future__ import annotations

import json
import os
import random
import resource
import string
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loramill.config.load import load_config, parse_config
from loramill.config.schema import ExperimentConfig
from loramill.errors import LoramillError
from loramill.experiments.folder import ExperimentFolder
from loramill.training.run import RunResult, run_training

OTHERS = string.ascii_lowercase[6:]
Row = dict[str, Any]


def binary_row(draw: random.Random, index: int) -> Row:
    """The label says whether an "a" stands in the text."""
    return {"text": _letters(draw, "a" if index % 2 else "b"), "label": index % 2}


def colour_row(draw: random.Random, index: int) -> Row:
    letter, name = (("a", "red"), ("b", "green"), ("c", "blue"))[index % 3]
    return {"text": _letters(draw, letter), "label": name}


def pair_row(draw: random.Random, index: int) -> Row:
    """The label can be told from the second text only."""
    return {"text": _letters(draw, "c"), "text_pair": _letters(draw, "a" if index % 2 else "b"), "label": index % 2}


def topics_row(draw: random.Random, index: int) -> Row:
    topics = [name for bit, name in ((1, "apples"), (2, "bees")) if index & bit]
    letters = "".join(name[0] for name in topics) + "d"
    return {"text": _letters(draw, *letters), "label": topics}


def score_row(draw: random.Random, index: int) -> Row:
    return {"text": _letters(draw, "a" if index % 2 else "b"), "label": 1.5 if index % 2 else -0.75}


def _letters(draw: random.Random, *wanted: str) -> str:
    letters = [*wanted, *wanted, *draw.choices(OTHERS, k=draw.randint(1, 6))]
    draw.shuffle(letters)
    return " ".join(letters)


def write_rows(
    folder: Path, row: Callable[[random.Random, int], Row] = binary_row, *, train: int = 96, validation: int = 48
) -> Path:
    """``train.jsonl`` and ``validation.jsonl``, no text twice."""
    draw, seen = random.Random(7), set()
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("validation", validation)):
        lines: list[str] = []
        while len(lines) < count:
            made = row(draw, len(lines))
            key = (made["text"], made.get("text_pair"))
            if key not in seen:
                seen.add(key)
                lines.append(json.dumps(made) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def small_config(model: Path | str, data: Path | str, **changes: object) -> ExperimentConfig:
    """A config for a small run on the CPU, exact and with one thread; ``changes`` have ``__`` for the dot."""
    defaults: Mapping[str, object] = {
        "experiment_name": "small",
        "model.name": str(model),
        "data.dataset_name": str(data),
        "lora.lora_dropout": 0.0,
        "training.learning_rate": 1e-2,
        "training.num_train_epochs": 6,
        "training.per_device_train_batch_size": 16,
        "training.device": "cpu",
        "training.bf16": False,
        "system.num_threads": 1,
    }
    return load_config(None, {**defaults, **{key.replace("__", "."): value for key, value in changes.items()}})


def new_folder(results: Path) -> ExperimentFolder:
    return ExperimentFolder.create(results, "small", datetime.now(UTC))


def train(
    config: ExperimentConfig,
    home: Path,
    *,
    folder: ExperimentFolder | None = None,
    resume: bool = False,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[RunResult, ExperimentFolder]:
    """A run in this process."""
    folder = folder or new_folder(home / "results")
    result = run_training(
        config, folder=folder, data_folder=home / "data", on_event=on_event, should_stop=should_stop, resume=resume
    )
    return result, folder


def train_in_own_session(home: Path, experiment_id: str, resume: bool) -> None:
    """What a process of its own does: train what a folder's config says. Killing its group ends its children too."""
    os.setsid()
    folder = ExperimentFolder.open(home / "results", experiment_id)
    train(parse_config(folder.read_config_tree()), home, folder=folder, resume=resume)


def train_with_little_memory(home: Path, experiment_id: str, megabytes: int | None) -> None:
    """A run in a process that may take so much more memory once everything is loaded; writes ``outcome.json``."""
    folder = ExperimentFolder.open(home / "results", experiment_id)
    events: list[dict[str, Any]] = []

    def limit(event: dict[str, Any]) -> None:
        events.append(event)
        message = event.get("message", "")
        if megabytes is not None and message.startswith("Training "):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 2**20, -1))
        if message.startswith("The final model is "):
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))

    try:
        result, _ = train(parse_config(folder.read_config_tree()), home, folder=folder, on_event=limit)
        outcome: dict[str, Any] = {"status": result.status}
    except LoramillError as error:
        outcome = {"status": "failed", "code": error.code, "message": error.message, "fix": error.fix}
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    events = [event for event in events if event["type"] in ("note", "log", "eval")]
    (folder.path / "outcome.json").write_text(json.dumps({**outcome, "events": events}), encoding="utf-8")
