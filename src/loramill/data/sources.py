"""Where rows come from: a hub, a file, a folder, a sample, a stored version. All end as one table a split."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramill.config.schema import DataConfig
from loramill.data.readers import COMPRESSIONS, file_format, read_table
from loramill.data.samples import load_sample, samples
from loramill.errors import DatasetNotFoundError, MissingSplitError

if TYPE_CHECKING:
    import pyarrow as pa

EVAL_NAMES = ("validation", "valid", "dev", "eval", "validation_matched", "test")
"""Names of a split to evaluate on, best first."""
WAYS_OUT = "Without a network, use a local file, sample:movie_reviews or sample:chinese_reviews as data.dataset_name."


@dataclass(frozen=True)
class SourceData:
    """Rows as the source has them.

    Attributes:
        splits: split name (``train``, ``validation``, ``test``) -> table with the source's own columns.
        origin: the source in words.
        label_names: class names in the order of their numbers, when the source declares them.
        notes: choices made while reading, in sentences.
    """

    splits: Mapping[str, pa.Table]
    origin: str
    label_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())


def load_source(config: DataConfig, data_folder: Path) -> SourceData:
    """Read the data set that ``config.dataset_name`` names.

    Raises:
        DatasetNotFoundError: nothing has that name, here or on the hub.
        MissingSplitError: there is no split to train on.
        DataError: it is there, and cannot be read.
    """
    name = config.dataset_name
    if name.startswith("sample:"):
        return _from_sample(name.removeprefix("sample:"), data_folder)
    path = Path(name)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return SourceData({"train": read_table(path)}, origin=str(path))
    if file_format(path) or path.is_absolute() or name.startswith("."):
        raise DatasetNotFoundError(f"There is no file or folder {name}.", fix="Correct data.dataset_name.")
    return _from_hub(config)


def eval_split_name(source: SourceData) -> str | None:
    """The split to evaluate on, if the source has one."""
    return next((name for name in EVAL_NAMES if name in source.splits), None)


def _from_sample(name: str, data_folder: Path) -> SourceData:
    import pyarrow as pa

    splits = {
        split: pa.table({"text": pa.array(rows.texts, pa.string()), "label": pa.array(rows.labels, pa.int64())})
        for split, rows in load_sample(name, data_folder).items()
    }
    sample = samples()[name]
    credit = sample.credit
    note = f"Sample data: {credit.title}, by {credit.authors} ({credit.licence} licence). {credit.reference}"
    return SourceData(splits, origin=f"sample:{name}", label_names=sample.label_names, notes=(note,))


def _from_folder(folder: Path) -> SourceData:
    splits: dict[str, pa.Table] = {}
    for path in sorted(folder.iterdir()):
        plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
        if plain.stem in ("train", *EVAL_NAMES) and file_format(path) and path.is_file():
            splits[plain.stem] = read_table(path)
    if "train" not in splits:
        present = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise MissingSplitError(
            f"The folder {folder} has no train.csv, train.tsv, train.jsonl or train.parquet; it has {present}.",
            fix="Name the file to train on train.*, and the one to evaluate on validation.*.",
        )
    return SourceData(splits, origin=str(folder))


def _from_hub(config: DataConfig) -> SourceData:
    try:
        import datasets
    except ImportError:
        raise DatasetNotFoundError(
            f"'{config.dataset_name}' is no file here, and reading from the hub needs the package 'datasets'.",
            fix=f"Install it with: pip install 'loramill[train]'. {WAYS_OUT}",
        ) from None
    datasets.disable_progress_bars()
    try:
        loaded: Any = datasets.load_dataset(config.dataset_name, config.dataset_config)
    except Exception as error:  # the library raises errors of many packages
        raise _hub_error(config, error) from error
    splits = {str(split): rows.with_format("arrow")[:] for split, rows in loaded.items()}
    if "train" not in splits:
        raise MissingSplitError(
            f"{config.dataset_name} has no train split; it has {', '.join(splits)}.", fix="Choose another data set."
        )
    return SourceData(splits, origin=_hub_name(config), label_names=_class_names(loaded["train"].features))


def _class_names(features: Any) -> tuple[str, ...] | None:
    """Names of the only column of classes that the data set declares."""
    declared = [tuple(feature.names) for feature in features.values() if hasattr(feature, "names")]
    return declared[0] if len(declared) == 1 else None


def _hub_error(config: DataConfig, error: Exception) -> DatasetNotFoundError:
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    where = "is not in the local cache, and HF_HUB_OFFLINE forbids the hub" if offline else "could not be loaded"
    reason = " ".join(str(error).split())[:200]
    return DatasetNotFoundError(
        f"The data set {_hub_name(config)} {where} ({type(error).__name__}: {reason}).",
        fix=f"Check data.dataset_name and data.dataset_config. {WAYS_OUT}",
    )


def _hub_name(config: DataConfig) -> str:
    return f"{config.dataset_name}/{config.dataset_config}" if config.dataset_config else config.dataset_name
