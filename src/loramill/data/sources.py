"""Where rows come from: a file, a folder, a sample, a stored version, a hub. All end as one table a split."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loramill.arrays import from_numpy, strings
from loramill.config.schema import DataConfig
from loramill.data.columns import find_columns
from loramill.data.findings import Finding, excerpt
from loramill.data.readers import file_format, plain_name, read_file, require_allowed
from loramill.data.rows import SplitRows, canonical_rows
from loramill.data.samples import load_sample, samples
from loramill.data.tables import FileRows
from loramill.data.text_input import ReadLimits
from loramill.data.version_manager import DataVersionManager
from loramill.errors import (
    DataError,
    DatasetNotFoundError,
    EmptyDatasetError,
    MissingSplitError,
    UnreadableDataError,
)
from loramill.hub import hub_answers

EVAL_NAMES = ("validation", "valid", "val", "dev", "eval", "validation_matched", "test")
"""Names of a split to evaluate on, best first."""
MAX_NAMED = 10
WAYS_OUT = "Without a network, use a local file, sample:movie_reviews or sample:chinese_reviews as data.dataset_name."


@dataclass(frozen=True)
class SourceData:
    """Splits in canonical form, and how they came to be.

    Attributes:
        splits: split name (``train``, ``validation``, ``test`` ...) -> rows.
        origin: the source in words.
        label_names: class names in the order of their numbers, when the source declares them.
        findings: what was wrong while reading.
        notes: choices made while reading, in sentences.
    """

    splits: Mapping[str, SplitRows]
    origin: str
    label_names: tuple[str, ...] | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def eval_name(self) -> str | None:
        """The split to evaluate on: the best-named one that has labels."""
        return next((name for name in EVAL_NAMES if name in self.splits and self.splits[name].is_labelled.any()), None)


@dataclass(frozen=True)
class _Files:
    splits: Mapping[str, FileRows]
    origin: str
    label_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def load_source(
    config: DataConfig,
    data_folder: Path,
    *,
    allowed_folders: Sequence[Path] | None = None,
    limits: ReadLimits | None = None,
) -> SourceData:
    """Read the data set that ``config.dataset_name`` names, and find its columns.

    Args:
        data_folder: holds downloads and stored versions.
        allowed_folders: refuse files outside of these; ``None`` allows every path (a person at a shell).
        limits: bounds on what is read.

    Raises:
        DatasetNotFoundError: nothing has that name, here or on the hub.
        PermissionDeniedError: the file is outside ``allowed_folders``.
        MissingSplitError: there is no split to train on.
        MissingColumnError: text or label cannot be found.
        UnreadableDataError, DataTooLargeError, EmptyDatasetError: it is there, and cannot be used.
    """
    files = _read(config, data_folder, allowed_folders, limits or ReadLimits())
    columns = find_columns(
        files.splits["train"].table,
        text=config.text_column,
        text_pair=config.text_pair_column,
        label=config.label_column,
    )
    splits = {}
    for name, file in files.splits.items():
        with _naming(name):
            splits[name] = canonical_rows(name, file, columns, files.label_names)
    findings = [replace(finding, split=name) for name, file in files.splits.items() for finding in file.findings]
    notes = [note for file in files.splits.values() for note in file.notes]
    return SourceData(
        splits=splits,
        origin=files.origin,
        label_names=files.label_names,
        findings=tuple(findings),
        notes=(*files.notes, *notes, f"Found {columns.describe()}."),
    )


def _read(config: DataConfig, data_folder: Path, allowed_folders: Sequence[Path] | None, limits: ReadLimits) -> _Files:
    kind, colon, rest = config.dataset_name.partition(":")
    if colon and kind == "sample":
        return _from_sample(rest, data_folder)
    if colon and kind == "version":
        return _from_version(rest, data_folder)
    path = Path(config.dataset_name)
    looks_like_path = bool(file_format(path)) or path.is_absolute() or config.dataset_name.startswith(".")
    try:
        if looks_like_path or path.exists():
            return _from_path(path, allowed_folders, limits)
    except OSError as error:
        fix = "Correct its name, or the permissions of the file and its folders."
        raise UnreadableDataError(f"{excerpt(str(path))} cannot be read: {error.strerror}.", fix=fix) from error
    return _from_hub(config)


def _from_path(path: Path, allowed_folders: Sequence[Path] | None, limits: ReadLimits) -> _Files:
    require_allowed(path, allowed_folders)
    if path.is_dir():
        return _from_folder(path, limits)
    if not path.exists():
        raise DatasetNotFoundError(f"There is no file or folder {path}.", fix=f"Correct its name. {WAYS_OUT}")
    return _Files({"train": read_file(path, limits)}, origin=str(path))


def _from_sample(name: str, data_folder: Path) -> _Files:
    import pyarrow as pa

    splits = {
        split: _whole(pa.table({"text": strings(rows.texts), "label": from_numpy(np.asarray(rows.labels))}))
        for split, rows in load_sample(name, data_folder).items()
    }
    sample = samples()[name]
    note = f"Sample data: {sample.credit.title}, by {sample.credit.authors} ({sample.credit.licence} licence)."
    return _Files(splits, origin=f"sample:{name}", label_names=sample.label_names, notes=(note,))


def _from_version(name: str, data_folder: Path) -> _Files:
    """``version:<id>``, or ``version:<training id>+<evaluation id>`` to train and evaluate on stored rows."""
    manager = DataVersionManager(data_folder)
    versions = [manager.get(part) for part in name.split("+", 1)]
    splits = {
        split: replace(_whole(manager.table(version)), is_stored=True)
        for split, version in zip(("train", "validation"), versions, strict=False)
    }
    return _Files(splits, origin=f"version:{name}", label_names=versions[0].label_names)


def _from_folder(folder: Path, limits: ReadLimits) -> _Files:
    splits: dict[str, FileRows] = {}
    others = []
    for path in sorted(path for path in folder.iterdir() if file_format(path) and path.is_file()):
        split = plain_name(path).stem.lower()
        if split not in ("train", *EVAL_NAMES):
            others.append(path.name)
            continue
        if split in splits:
            raise MissingSplitError(
                f"{folder} has several files for the split '{split}'.", fix="Keep one file for each split."
            )
        with _naming(split):
            splits[split] = read_file(path, limits)
    if "train" not in splits:
        present = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise MissingSplitError(
            f"The folder {folder} has no train.csv, train.tsv, train.jsonl or train.parquet; it has {present}.",
            fix="Name the file to train on train.*, and the one to evaluate on validation.*.",
        )
    notes = [f"Not read, as it is named like no split: {excerpt(name)}." for name in others[:MAX_NAMED]]
    return _Files(splits, origin=str(folder), notes=tuple(notes))


@contextlib.contextmanager
def _naming(split: str) -> Iterator[None]:
    """Have an error in the data say which split it is in."""
    try:
        yield
    except DataError as error:
        error.split = split
        raise


def _from_hub(config: DataConfig) -> _Files:
    try:
        import datasets
    except ImportError:
        raise DatasetNotFoundError(
            f"'{config.dataset_name}' is no file here, and reading from the hub needs the package 'datasets'.",
            fix=f"Install it with: pip install 'loramill[train]'. {WAYS_OUT}",
        ) from None
    datasets.disable_progress_bars()
    reachable = hub_answers()
    try:
        with _offline(datasets.config) if not reachable else contextlib.nullcontext():
            loaded: Any = datasets.load_dataset(config.dataset_name, config.dataset_config)
    except Exception as error:  # the library lets errors of many packages through
        raise _hub_error(config, error, reachable) from error
    splits = {str(split): _whole(rows.with_format("arrow")[:]) for split, rows in loaded.items()}
    if "train" not in splits:
        raise MissingSplitError(
            f"{config.dataset_name} has no train split; it has {', '.join(splits)}.", fix="Choose another data set."
        )
    names = _class_names(loaded["train"].features, config.label_column)
    return _Files(splits, origin=_hub_name(config), label_names=names)


@contextlib.contextmanager
def _offline(settings: Any) -> Iterator[None]:
    """Have ``datasets`` look into its cache alone."""
    before, settings.HF_HUB_OFFLINE = settings.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        settings.HF_HUB_OFFLINE = before


def _whole(table: Any) -> FileRows:
    if table.num_rows == 0:
        raise EmptyDatasetError("The data set has a split without rows.", fix="Choose another data set.")
    return FileRows(table, np.arange(table.num_rows, dtype=np.int64))


def _class_names(features: Any, label_column: str | None) -> tuple[str, ...] | None:
    """Names of the classes that the data set declares for its label column."""
    declared: dict[str, tuple[str, ...]] = {}
    for name, feature in features.items():
        names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        if names:
            declared[name] = tuple(names)
    wanted = find_declared(list(declared), label_column)
    return declared[wanted] if wanted else None


def find_declared(names: Sequence[str], label_column: str | None) -> str | None:
    """The column of classes that is meant: the named one, one called "label", or the only one."""
    if label_column is not None:
        return label_column if label_column in names else None
    if "label" in names:
        return "label"
    return names[0] if len(names) == 1 else None


def _hub_error(config: DataConfig, error: Exception, reachable: bool) -> DatasetNotFoundError:
    name = _hub_name(config)
    if reachable:
        message = (
            f"The data set {name} could not be loaded ({type(error).__name__}: {' '.join(str(error).split())[:200]})."
        )
    else:
        told = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
        why = "HF_HUB_OFFLINE forbids the hub" if told else "the hub is away"
        message = f"The data set {name} is not in the local cache, and {why}."
    return DatasetNotFoundError(
        message,
        fix=f"Check data.dataset_name and data.dataset_config. {WAYS_OUT}",
    )


def _hub_name(config: DataConfig) -> str:
    return f"{config.dataset_name}/{config.dataset_config}" if config.dataset_config else config.dataset_name
