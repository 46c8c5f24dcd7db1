"""Finished experiments for the tests of serving: small models whose answers are known beforehand."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from loramill.base_models import locate_base_model
from loramill.config.load import load_config
from loramill.engine.base import FrozenBase
from loramill.engine.losses import ProblemType
from loramill.engine.low_rank_adapter import Adapter
from loramill.experiments.folder import ExperimentFolder
from loramill.inference.model_host import HostOptions
from loramill.training.final_model import save_final_model
from small_models import random_adapter, small_base


def drawn_adapter(base: FrozenBase, seed: int, **changes: object) -> Adapter:
    """A random adapter; another seed is another one."""
    adapter = random_adapter(base, **changes)
    with torch.no_grad():
        adapter.values.normal_(0, 0.2, generator=torch.Generator().manual_seed(seed))
    return adapter


def constant_adapter(base: FrozenBase, answer: int, labels: int = 10) -> Adapter:
    """An adapter that says ``answer`` to every text: whoever hears another was served by another adapter."""
    adapter = drawn_adapter(base, seed=answer, labels=labels)
    last = adapter.head[base.architecture.family.head[-1].path]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias[answer] = 20.0
    return adapter


class Experiments:
    """Finished experiments on one small base.

    Attributes:
        results: their folder.
        model: the folder of the base.
    """

    def __init__(self, results: Path, model: Path, base: FrozenBase | None = None) -> None:
        self.results, self.model = results, model
        self.base = base or small_base(model)

    def save(
        self,
        experiment_id: str,
        adapter: Adapter,
        *,
        problem_type: ProblemType = "single_label_classification",
        label_names: Sequence[str] | None = None,
    ) -> ExperimentFolder:
        """A folder as a finished run leaves it, as far as serving reads it; it replaces one from before."""
        folder = ExperimentFolder(self.results / experiment_id)
        shutil.rmtree(folder.path, ignore_errors=True)
        folder.artifacts.mkdir(parents=True)
        config = load_config(None, {"model.name": str(self.model), "data.max_length": 32})
        names = [f"class {index}" for index in range(adapter.spec.labels)]
        save_final_model(
            folder.final_model,
            self.base,
            adapter,
            files=locate_base_model(str(self.model)),
            config=config,
            label_names=names if label_names is None else label_names,
            problem_type=problem_type,
            metrics={},
        )
        folder.write_metrics({"eval": {"accuracy": 1.0}})
        return folder

    def save_constant(self, experiment_id: str, answer: int) -> ExperimentFolder:
        return self.save(experiment_id, constant_adapter(self.base, answer))

    def options(self, **changes: object) -> HostOptions:
        options = HostOptions(self.results, self.results / "serving.json", torch.device("cpu"), torch.float32)
        return dataclasses.replace(options, **changes)  # type: ignore[arg-type]
