"""Was a run reproduced? Two runs held against each other: weights bit by bit, metrics, data, environment."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loramill.config.load import parse_config
from loramill.config.schema import ExperimentConfig
from loramill.errors import NotFoundError
from loramill.experiments.compare import flatten_config
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.metrics import flatten_metrics

WEIGHTS_FILE = "adapter_model.safetensors"
EXPLAINING = ("python", "packages", "os", "cpu", "gpus")
"""Parts of ``environment.json`` that can change a result."""


@dataclass(frozen=True)
class Reproduction:
    """Two runs held against each other.

    Attributes:
        equal: the adapters are the same file, bit for bit.
        difference: largest absolute difference of a weight; ``None`` when the adapters differ in shape.
        metrics: evaluation metric -> (original, repetition), where they differ.
        environment: what differs between the machines, key -> (original, repetition).
        same_data: both saw the same rows.
    """

    original: str
    repetition: str
    equal: bool
    hashes: tuple[str, str]
    difference: float | None
    metrics: dict[str, tuple[float | None, float | None]]
    environment: dict[str, tuple[Any, Any]]
    same_data: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def config_to_repeat(original: ExperimentFolder) -> ExperimentConfig:
    """The original's config, with the stored rows that it saw in place of wherever they came from.

    Raises:
        ConfigError: the config no longer fits the schema.
        NotFoundError: the run recorded no data versions.
    """
    data = original.read_data()
    if not (data.get("train") and data.get("eval")):
        raise NotFoundError(f"Experiment {original.id!r} recorded no data versions, so its rows are not known.")
    tree = original.read_config_tree()
    own = tree.get("data", {})
    tree["data"] = {
        **own,
        "dataset_name": f"version:{data['train']}+{data['eval']}",
        **dict.fromkeys(("dataset_config", "train_samples", "eval_samples")),
        **dict.fromkeys(("text_column", "text_pair_column", "label_column")),  # stored rows have names of their own
        "on_findings": "warn",  # and were cleaned before they were stored
        "validation_rules": {**own.get("validation_rules", {}), "remove_html": False},
    }
    return parse_config(tree, source=str(original.config_file))


def hold_against(original: ExperimentFolder, repetition: ExperimentFolder) -> Reproduction:
    """Compare a finished run with its repetition.

    Raises:
        NotFoundError: one of them has no finished model.
    """
    files = [_weights(folder) for folder in (original, repetition)]
    first, second = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return Reproduction(
        original=original.id,
        repetition=repetition.id,
        equal=first == second,
        hashes=(first, second),
        difference=0.0 if first == second else _largest_difference(*files),
        metrics=_differences(_evaluation(original), _evaluation(repetition)),
        environment=_differences(_environment(original), _environment(repetition)),
        same_data=_rows(original) == _rows(repetition),
    )


def _weights(folder: ExperimentFolder) -> Path:
    file = folder.final_model / WEIGHTS_FILE
    if not file.is_file():
        raise NotFoundError(f"Experiment {folder.id!r} has no finished model.")
    return file


def _largest_difference(first: Path, second: Path) -> float | None:
    import numpy as np
    from safetensors.numpy import load_file

    mine, theirs = load_file(first), load_file(second)
    if {name: value.shape for name, value in mine.items()} != {name: value.shape for name, value in theirs.items()}:
        return None
    return max((float(np.abs(value - theirs[name]).max()) for name, value in mine.items() if value.size), default=0.0)


def _evaluation(folder: ExperimentFolder) -> dict[str, float]:
    return flatten_metrics({"eval": folder.read_metrics().get("eval", {})})


def _environment(folder: ExperimentFolder) -> dict[str, Any]:
    environment = folder.read_environment()
    return dict(flatten_config({key: environment.get(key) for key in EXPLAINING}))


def _rows(folder: ExperimentFolder) -> tuple[object, object]:
    data = folder.read_data()
    return data.get("train"), data.get("eval")


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = dict.fromkeys((*first, *second))
    return {key: (first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)}
