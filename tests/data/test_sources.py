"""Names of data sets lead to rows, or to an error that says what to do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from data_rows import Load, MakeRows, clean_texts, write_rows
from hub_server import running_hub
from loramill.config.schema import DataConfig
from loramill.data.sources import load_source
from loramill.data.version_manager import DataVersionManager
from loramill.errors import (
    DatasetNotFoundError,
    EmptyDatasetError,
    LoramillError,
    MissingColumnError,
    MissingSplitError,
    NotFoundError,
    PermissionDeniedError,
    UnreadableDataError,
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(
        tmp_path / "rows.jsonl",
        [{"text": text, "label": number % 2} for number, text in enumerate(clean_texts(20))],
    )


def test_a_sample_comes_with_credit_and_names(load: Load) -> None:
    source = load("sample:chinese_reviews")
    assert source.label_names == ("negative", "positive")
    assert "isnowfy" in source.notes[0]
    assert source.eval_name == "validation"


@pytest.mark.parametrize("labels", [["1.0", "2.0", "two"], [["0", "1"], ["1", "0"], ["2"]]], ids=["names", "lists"])
def test_a_part_of_the_rows_has_the_same_labels_when_it_is_read_again(
    load: Load, tmp_path: Path, make_rows: MakeRows, labels: list[object]
) -> None:
    part = make_rows(clean_texts(3), labels).take(np.asarray([0, 1]))
    stored = DataVersionManager(tmp_path / "data").create(part).version
    again = load(f"version:{stored.id}").splits["train"]
    assert again.labels.equals(part.labels)
    assert DataVersionManager(tmp_path / "data").create(again).version.id == stored.id


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("sample:unknown", DatasetNotFoundError),
        ("version:0123abcd", NotFoundError),
        ("nowhere.csv", DatasetNotFoundError),
        ("./nowhere", DatasetNotFoundError),
        ("/nowhere/at/all", DatasetNotFoundError),
        ("long" * 100, UnreadableDataError),
        ("long" * 100 + ".csv", UnreadableDataError),
    ],
)
def test_what_is_not_there_is_said_without_asking_the_hub(load: Load, name: str, error: type[LoramillError]) -> None:
    with pytest.raises(error) as caught:
        load(name)
    assert caught.value.fix


def test_what_is_no_data_set_is_refused(load: Load, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(MissingSplitError):
        load(tmp_path / "folder.csv")
    (tmp_path / "notes.docx").write_text("text")
    with pytest.raises(DatasetNotFoundError, match="format"):
        load(tmp_path / "notes.docx")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(EmptyDatasetError):
        load(tmp_path / "empty.csv")


def test_two_files_for_one_split_are_refused(load: Load, tmp_path: Path, rows: Path) -> None:
    rows.rename(tmp_path / "train.jsonl")
    (tmp_path / "train.csv").write_text("text,label\na,1\nb,0\n")
    with pytest.raises(MissingSplitError, match="several"):
        load(tmp_path)


def test_splits_without_the_columns_of_training_are_named(load: Load, tmp_path: Path, rows: Path) -> None:
    rows.rename(tmp_path / "train.jsonl")
    write_rows(tmp_path / "validation.jsonl", [{"sentence": "a", "label": 1}])
    with pytest.raises(MissingColumnError, match=r"validation.*'text'.*sentence") as caught:
        load(tmp_path)
    assert caught.value.split == "validation"
    (tmp_path / "validation.jsonl").write_text("")
    with pytest.raises(EmptyDatasetError) as empty:
        load(tmp_path)
    assert empty.value.split == "validation"


def test_a_test_split_needs_no_labels(load: Load, tmp_path: Path, rows: Path) -> None:
    rows.rename(tmp_path / "train.jsonl")
    write_rows(tmp_path / "test.jsonl", [{"text": "nobody knows"}, {"text": "what this is"}])
    source = load(tmp_path)
    assert source.splits["test"].labels.null_count == len(source.splits["test"]) == 2
    assert source.eval_name is None
    write_rows(tmp_path / "val.jsonl", [{"text": "nobody knows"}])
    with pytest.raises(MissingColumnError, match="The val split has no column 'label'"):
        load(tmp_path)


def test_splits_are_found_by_every_common_name_and_other_files_are_named(
    load: Load, tmp_path: Path, rows: Path
) -> None:
    for name in ("Train.JSONL", "val.jsonl", "more.jsonl"):
        (tmp_path / name).write_bytes(rows.read_bytes())
    rows.unlink()
    source = load(tmp_path)
    assert (list(source.splits), source.eval_name) == (["train", "val"], "val")
    assert "Not read, as it is named like no split: more.jsonl." in source.notes


def test_only_allowed_folders_are_read(tmp_path: Path, rows: Path) -> None:
    inside, outside = tmp_path / "uploads", tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    rows.rename(outside / "rows.jsonl")
    (inside / "own.jsonl").write_text((outside / "rows.jsonl").read_text())
    (inside / "link.jsonl").symlink_to(outside / "rows.jsonl")

    def read(path: Path) -> None:
        load_source(DataConfig(dataset_name=str(path)), tmp_path / "data", allowed_folders=[inside])

    read(inside / "own.jsonl")
    for path in (
        outside / "rows.jsonl",
        inside / ".." / "elsewhere" / "rows.jsonl",
        inside / "link.jsonl",
        outside,
        Path("/etc/passwd.csv"),
        tmp_path / "uploads-of-others" / "rows.jsonl",
    ):
        with pytest.raises(PermissionDeniedError):
            read(path)


LOAD_FROM_HUB = """
import json, sys
from pathlib import Path
from loramill.config.schema import DataConfig
from loramill.data.sources import load_source
from loramill.data.version_manager import DataVersionManager
from loramill.errors import DatasetNotFoundError
try:
    source = load_source(DataConfig(dataset_name=sys.argv[1]), Path(sys.argv[2]))
except DatasetNotFoundError as error:
    print(json.dumps({"message": error.message, "fix": error.fix}))
else:
    rows = source.splits["train"]
    unlabelled = {name: split.labels.null_count for name, split in source.splits.items()}
    print(json.dumps({"labels": rows.labels.to_pylist(), "texts": rows.texts.to_pylist(), "unlabelled": unlabelled,
                      "names": source.label_names, "eval": source.eval_name}))
"""


def load_from_hub(name: str, tmp_path: Path, environment: dict[str, str]) -> tuple[dict[str, Any], str]:
    """What a fresh process gets from the real client of the hub, and what it writes to stderr."""
    result = subprocess.run(
        [sys.executable, "-c", LOAD_FROM_HUB, name, str(tmp_path)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout), result.stderr


def test_a_hub_data_set_brings_splits_and_class_names_and_then_needs_no_hub(tmp_path: Path) -> None:
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["world", "art"])}
    )
    texts = clean_texts(10, seed=1)
    for name, labels in (("train", [0, 1] * 5), ("validation", [1] * 10), ("test", [-1] * 10)):
        rows = datasets.Dataset.from_dict({"sentence": texts, "label": labels}, features=features)
        rows.to_parquet(tmp_path / "hub" / "datasets" / "team" / "news" / "data" / f"{name}-00000-of-00001.parquet")
    with running_hub(tmp_path / "hub") as hub:
        environment = hub.environment(tmp_path / "cache")
        fetched, _ = load_from_hub("team/news", tmp_path, environment)
        missing, _ = load_from_hub("team/olds", tmp_path, environment)
    assert fetched == {
        "labels": ["0", "1"] * 5,
        "texts": texts,
        "unlabelled": {"train": 0, "validation": 0, "test": 10},
        "names": ["world", "art"],
        "eval": "validation",
    }
    assert "team/olds could not be loaded" in missing["message"]
    again, _ = load_from_hub("team/news", tmp_path, environment)  # the hub has gone
    assert again == fetched


def test_a_hub_that_is_away_is_said_at_once_with_what_works_without_it(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment = {"HF_ENDPOINT": f"http://127.0.0.1:{free.getsockname()[1]}", "HF_HOME": str(tmp_path)}
        answer, stderr = load_from_hub("nobody/nothing", tmp_path, {**environment, "HF_HUB_OFFLINE": "0"})
    assert answer["message"] == "The data set nobody/nothing is not in the local cache, and the hub is away."
    assert "sample:movie_reviews" in answer["fix"]
    assert "Retrying" not in stderr


def test_a_process_that_is_told_to_stay_offline_does(tmp_path: Path) -> None:
    answer, _ = load_from_hub("nobody/nothing", tmp_path, {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    assert "HF_HUB_OFFLINE" in answer["message"]
