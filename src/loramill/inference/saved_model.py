"""A trained model on disk, and how a caller's name for it leads there."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from loramill.engine.adapters import BaseNeeds
from loramill.engine.model_labels import LABELS_FILE, ModelLabels
from loramill.engine.peft_format import CONFIG_FILE, WEIGHTS_FILE
from loramill.errors import AdapterFormatError, ModelNotFoundError, NotFoundError
from loramill.experiments.folder import ExperimentFolder, is_plain_name

LATEST = "latest"
VERSION_DIGITS = 12
SUGGESTED_FROM = 1000
"""The newest experiments, among which the nearest names for a wrong one are looked for."""


@dataclass(frozen=True)
class SavedModel:
    """The ``final_model`` of one experiment.

    Attributes:
        version: first digits of the BLAKE3 hash of weights, adapter config and labels: the same content is the same
            version, wherever it lies.
    """

    experiment_id: str
    folder: Path
    labels: ModelLabels
    version: str

    @classmethod
    def read(cls, experiment: ExperimentFolder) -> SavedModel:
        """
        Raises:
            AdapterFormatError: the experiment has no whole model.
        """
        folder = experiment.final_model
        labels = ModelLabels.read(folder)
        return cls(experiment.id, folder, labels, _content_version(folder))

    def base_needs(self) -> BaseNeeds:
        """
        Raises:
            AdapterFormatError: the adapter's config is not JSON.
        """
        try:
            config = json.loads((self.folder / CONFIG_FILE).read_text(encoding="utf-8"))
            return BaseNeeds.of_saved(config)
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise AdapterFormatError(f"{self.folder / CONFIG_FILE} cannot be read: {error}") from error


def find_experiment(results_folder: Path, name: str = LATEST) -> ExperimentFolder:
    """The experiment with this id, or the newest finished one for ``latest``.

    Raises:
        NotFoundError: there is none; says which ids are near.
    """
    if name == LATEST:
        return _newest_finished(results_folder)
    if is_plain_name(name) and (results_folder / name).is_dir():
        return ExperimentFolder.open(results_folder, name)
    known = [folder.id for folder in finished_experiments(results_folder)[:SUGGESTED_FROM]]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    fix = f"Did you mean {' or '.join(near)}?" if near else "See `loramill experiments list`."
    raise NotFoundError(f"There is no experiment {name[:100]!r}.", fix=fix)


def find_served(results_folder: Path, name: str) -> ExperimentFolder:
    """``find_experiment`` for the service.

    Raises:
        ModelNotFoundError: there is none.
    """
    try:
        return find_experiment(results_folder, name)
    except NotFoundError as error:
        raise ModelNotFoundError(error.message, fix=error.fix) from error


def finished_experiments(results_folder: Path) -> list[ExperimentFolder]:
    """Every experiment with a model and its metrics, which are written last; the latest finished comes first."""
    finished = []
    for metrics in results_folder.glob("[!.]*/metrics.json"):
        folder = ExperimentFolder(metrics.parent)
        if (folder.final_model / WEIGHTS_FILE).is_file():
            finished.append((metrics.stat().st_mtime_ns, folder.id, folder))
    return [folder for _, _, folder in sorted(finished, reverse=True)]


def _newest_finished(results_folder: Path) -> ExperimentFolder:
    finished = finished_experiments(results_folder)
    if not finished:
        raise NotFoundError("No experiment has finished yet.", fix="Train one: make quickstart, or loramill train.")
    return finished[0]


def _content_version(folder: Path) -> str:
    digest = blake3()
    for name in (WEIGHTS_FILE, CONFIG_FILE, LABELS_FILE):
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise AdapterFormatError(f"{folder} has no {name} that can be read: {error}") from error
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()[:VERSION_DIGITS]
