"""Names of data sets lead to rows, or to an error that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_rows import Load, clean_texts, write_rows
from loramill.config.schema import DataConfig
from loramill.data.sources import load_source
from loramill.errors import (
    DatasetNotFoundError,
    EmptyDatasetError,
    LoramillError,
    MissingColumnError,
    MissingSplitError,
    NotFoundError,
    PermissionDeniedError,
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


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("sample:unknown", DatasetNotFoundError),
        ("version:0123abcd", NotFoundError),
        ("nowhere.csv", DatasetNotFoundError),
        ("./nowhere", DatasetNotFoundError),
        ("/nowhere/at/all", DatasetNotFoundError),
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
    with pytest.raises(MissingColumnError, match=r"validation.*'text'.*sentence"):
        load(tmp_path)


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


def test_a_hub_data_set_brings_splits_and_class_names(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["world", "art"])}
    )
    splits = {
        name: datasets.Dataset.from_dict({"sentence": clean_texts(10, seed=seed), "label": labels}, features=features)
        for name, seed, labels in (("train", 1, [0, 1] * 5), ("validation", 2, [1] * 10), ("test", 3, [-1] * 10))
    }
    asked: list[Any] = []

    def load_dataset(*name: Any) -> Any:
        asked.append(name)
        return datasets.DatasetDict(splits)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = load("glue", dataset_config="sst2")
    assert asked == [("glue", "sst2")]
    assert source.label_names == ("world", "art")
    assert source.splits["train"].labels.to_pylist() == ["0", "1"] * 5
    assert source.splits["test"].labels.null_count == 10
    assert source.eval_name == "validation"


def test_a_hub_data_set_that_is_not_cached_is_named_with_what_works_offline(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom loramill.config.schema import DataConfig\n"
        "from loramill.data.sources import load_source\nfrom loramill.errors import DatasetNotFoundError\n"
        "try:\n    load_source(DataConfig(dataset_name='nobody/nothing'), Path(sys.argv[1]))\n"
        "except DatasetNotFoundError as error:\n    print(error.message, '|', error.fix)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    message, fix = result.stdout.split("|")
    assert "nobody/nothing" in message
    assert "HF_HUB_OFFLINE" in message
    assert "sample:movie_reviews" in fix
