"""One experiment on disk: ``results/<experiment_name>_<YYYYmmdd_HHMMSS>/`` and every file in it.

The folder is the record that outlives the database: ``reindex`` rebuilds each row from these files.
Training writes here and nowhere else, so this module knows no SQL.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from loramill.errors import CorruptFileError, NotFoundError
from loramill.files import named_storage_errors, sync_folder, write_atomic, write_json

MAX_SAME_SECOND = 10_000
FAST_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C parser is ten times faster, which shows when many runs are compared; not every build has it."""


@dataclass(frozen=True)
class ExperimentFolder:
    """The files of one experiment; its name is the experiment's id."""

    path: Path

    @classmethod
    def create(cls, results_folder: Path, experiment_name: str, now: datetime) -> ExperimentFolder:
        """Make a new folder, to stay, with its parts; see ``reserve``."""
        folder = cls.reserve(results_folder, experiment_name, now)
        folder.complete()
        return folder

    @classmethod
    def reserve(cls, results_folder: Path, experiment_name: str, now: datetime) -> ExperimentFolder:
        """Take a name; the file system decides who gets it, so two processes never share one.

        Args:
            now: start of the experiment; its local time names the folder. A second one within the same
                second gets the suffix ``_2``, then ``_3``.

        Raises:
            DiskFullError, UnwritableError, StorageError: the folder cannot be made.
        """
        base = f"{experiment_name}_{now:%Y%m%d_%H%M%S}"
        with named_storage_errors(results_folder):
            results_folder.mkdir(parents=True, exist_ok=True)
            for attempt in range(1, MAX_SAME_SECOND):
                path = results_folder / (base if attempt == 1 else f"{base}_{attempt}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path)
            raise OSError(f"{MAX_SAME_SECOND} experiments named {base} exist")

    def complete(self) -> None:
        """Make what is missing of the folder and its parts, and wait until the disk has its name.

        Raises:
            DiskFullError, UnwritableError, StorageError: it cannot be made.
        """
        with named_storage_errors(self.path):
            for part in (self.plots, self.artifacts):
                part.mkdir(parents=True, exist_ok=True)
            sync_folder(self.path.parent)

    @classmethod
    def open(cls, results_folder: Path, experiment_id: str) -> ExperimentFolder:
        """The folder of an existing experiment.

        Raises:
            NotFoundError: there is none, or the id would lead out of ``results_folder``.
        """
        path = results_folder / experiment_id
        inside = is_plain_name(experiment_id) and path.resolve().parent == results_folder.resolve()
        if not (inside and path.is_dir()):
            raise NotFoundError(
                f"No experiment {experiment_id!r} in {results_folder}.", fix="See `loramill experiments list`."
            )
        return cls(path)

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.json"

    @property
    def log_file(self) -> Path:
        return self.path / "logs.txt"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def environment_file(self) -> Path:
        return self.path / "environment.json"

    @property
    def data_file(self) -> Path:
        return self.path / "data.json"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def final_model(self) -> Path:
        return self.artifacts / "final_model"

    @property
    def predictions_file(self) -> Path:
        return self.artifacts / "eval_predictions.parquet"

    def write_config(self, yaml_text: str) -> None:
        write_atomic(self.config_file, yaml_text)

    def write_metrics(self, metrics: Mapping[str, object]) -> None:
        write_json(self.metrics_file, metrics)

    def write_environment(self, environment: Mapping[str, object]) -> None:
        write_json(self.environment_file, environment)

    def write_data(self, data: Mapping[str, object]) -> None:
        write_json(self.data_file, data)

    def append_event(self, event: Mapping[str, object]) -> None:
        """Add one line to ``events.jsonl`` in a single write, so that a kill tears the last line at most.

        A torn line left by an earlier process is closed first, so that this event starts its own line.
        """
        line = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        with named_storage_errors(self.events_file), self.events_file.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write(line.encode("utf-8"))

    def read_config(self) -> str:
        """The YAML text of the whole config; "" when the run never got that far."""
        return _read_text(self.config_file)

    def read_config_tree(self) -> dict[str, Any]:
        """The config as values of JSON, unchecked: an imported run need not fit our schema. Dates become texts.

        Raises:
            CorruptFileError: it is not a YAML mapping.
        """
        try:
            tree = yaml.load(self.read_config(), Loader=FAST_SAFE_LOADER)  # noqa: S506
        except yaml.YAMLError as error:
            raise CorruptFileError(f"{self.config_file} is not YAML: {error}") from error
        if not isinstance(tree, dict | None):
            raise CorruptFileError(f"{self.config_file} must hold a mapping.")
        values: dict[str, Any] = json.loads(json.dumps(tree or {}, default=str))
        return values

    def read_metrics(self) -> dict[str, Any]:
        return read_json(self.metrics_file)

    def read_environment(self) -> dict[str, Any]:
        return read_json(self.environment_file)

    def read_data(self) -> dict[str, Any]:
        return read_json(self.data_file)

    def read_log(self) -> str:
        return _read_text(self.log_file)

    def read_events(self) -> list[dict[str, Any]]:
        """Every whole line of ``events.jsonl``, in order; a line torn by a kill is left out."""
        return [event for line in _read_text(self.events_file).split("\n") if (event := _parse_event(line))]


def results_holding(results_folder: Path, experiment_id: str, config: Mapping[str, Any]) -> Path:
    """Where an experiment's folder is: in the results folder, or else where its config's ``output_dir`` said.

    Args:
        results_folder: the usual one, directly below ``LORAMILL_HOME``.
    """
    training = config.get("training")  # an imported run need not have it
    elsewhere = training.get("output_dir") if isinstance(training, Mapping) else None
    if elsewhere is None or (results_folder / experiment_id).is_dir():
        return results_folder
    return results_folder.parent / str(elsewhere)


def is_plain_name(experiment_id: str) -> bool:
    """Whether an id is one path component, neither hidden nor able to leave its folder."""
    return (
        0 < len(experiment_id) <= 255
        and not experiment_id.startswith(".")
        and not any(character in "/\\:\0" or ord(character) < 32 for character in experiment_id)
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when the file is not there.

    Raises:
        CorruptFileError: it is there, and is not a JSON object.
    """
    text = _read_text(path)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CorruptFileError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CorruptFileError(f"{path} must hold a JSON object.")
    return value


def _parse_event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
