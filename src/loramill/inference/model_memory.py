"""Models in memory with the bases that they share: read from files, kept by use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from loramill.errors import AdapterFormatError
from loramill.inference.saved_model import SavedModel, find_served
from loramill.inference.served_model import BaseKind, LoadedBase, ServedModel


class ModelMemory:
    """Every model that is in memory, the least recently used first.

    ``read`` is for a thread of its own, one call at a time; all else is for the event loop.

    Args:
        results_folder: where experiments are.
        on_drop: told of a base that no model needs any more.
    """

    def __init__(
        self, results_folder: Path, device: torch.device, dtype: torch.dtype, on_drop: Callable[[LoadedBase], None]
    ) -> None:
        self._results_folder, self._device, self._dtype = results_folder, device, dtype
        self._on_drop = on_drop
        self._models: OrderedDict[str, ServedModel] = OrderedDict()
        self._bases: dict[BaseKind, LoadedBase] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._models))

    def __contains__(self, experiment_id: str) -> bool:
        return experiment_id in self._models

    @property
    def models(self) -> list[ServedModel]:
        return list(self._models.values())

    def get(self, experiment_id: str) -> ServedModel | None:
        return self._models.get(experiment_id)

    def use(self, experiment_id: str) -> ServedModel | None:
        """The same, and it was the last that was used."""
        model = self._models.get(experiment_id)
        if model is not None:
            self._models.move_to_end(experiment_id)
        return model

    def keep(self, model: ServedModel) -> None:
        """Add a model, or put another version in its place."""
        self._models[model.saved.experiment_id] = model

    def drop(self, experiment_id: str) -> None:
        self._models.pop(experiment_id, None)

    def read(self, experiment_id: str, version: str | None) -> ServedModel:
        """A model from its files, verified.

        Args:
            version: the only one that will do; ``None`` for whatever is there.

        Raises:
            ModelNotFoundError: there is no such experiment, or its base is not here.
            AdapterFormatError: it cannot be served, or has another version.
        """
        saved = SavedModel.read(find_served(self._results_folder, experiment_id))
        if version and saved.version != version:
            raise AdapterFormatError(
                f"The files of {experiment_id} are not those that were verified: {version} is now {saved.version}.",
                fix=f"If that is meant to be so, load it again: POST /models/{experiment_id}/load",
            )
        kind = BaseKind.of(saved)
        if kind not in self._bases:
            self._bases[kind] = LoadedBase.load(kind.name, device=self._device, dtype=self._dtype, needs=kind.needs)
        return ServedModel.load(saved, self._bases[kind])

    def shrink(self, limit: int, is_named: Callable[[str], bool]) -> None:
        """Drop the least recently used adapters above ``limit`` bytes, but none that a name leads to."""
        used = sum(model.nbytes for model in self._models.values())
        for experiment_id in list(self._models)[:-1]:
            if used <= limit:
                return
            if not is_named(experiment_id):
                used -= self._models.pop(experiment_id).nbytes

    def drop_unused_bases(self) -> None:
        """Not while ``read`` may be about to use one."""
        used = {model.base for model in self._models.values()}
        for kind, base in list(self._bases.items()):
            if base not in used:
                del self._bases[kind]
                self._on_drop(base)
