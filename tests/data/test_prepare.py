"""From a config to rows for a run: seeded, checked, stored, and with every choice said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_rows import clean_texts, write_rows
from loramill.config.schema import DataConfig
from loramill.data.prepare import PreparedData, prepare_data
from loramill.data.version_manager import DataVersionManager
from loramill.errors import DataError, DataRefusedError, EmptyDatasetError, LabelError, MissingSplitError


def prepare(tmp_path: Path, source: Path | str, **options: Any) -> PreparedData:
    run = {key: options.pop(key) for key in ("num_labels", "seed", "strict", "count_tokens") if key in options}
    config = DataConfig.model_validate({"dataset_name": str(source), **options})
    return prepare_data(config, data_folder=tmp_path / "data", **{"num_labels": None, "seed": 42, **run})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [{"text": text, "label": ["bad", "good"][number % 2]} for number, text in enumerate(clean_texts(400))]
    return write_rows(tmp_path / "rows.jsonl", rows)


def test_a_single_file_is_split_by_the_seed(tmp_path: Path, source: Path) -> None:
    first = prepare(tmp_path, source, eval_fraction=0.2)
    assert (len(first.train), len(first.eval)) == (320, 80)
    assert (first.label_names, first.problem_type) == (("bad", "good"), "single_label_classification")
    assert first.eval.labels.sum() == 40
    assert not set(first.train.row_ids.tolist()) & set(first.eval.row_ids.tolist())
    texts = clean_texts(400)
    assert first.train.texts == [texts[row] for row in first.train.row_ids]
    again = prepare(tmp_path, source, eval_fraction=0.2)
    assert again.eval.row_ids.tolist() == first.eval.row_ids.tolist()
    assert again.versions == first.versions
    other = prepare(tmp_path, source, eval_fraction=0.2, seed=43)
    assert other.eval.row_ids.tolist() != first.eval.row_ids.tolist()


def test_fewer_rows_are_chosen_by_the_seed(tmp_path: Path, source: Path) -> None:
    data = prepare(tmp_path, source, train_samples=100, eval_samples=10)
    assert (len(data.train), len(data.eval)) == (100, 10)
    assert np.bincount(data.train.labels.astype(int)).tolist() == [50, 50]
    assert data.report.total_samples == 110


def test_versions_hold_exactly_the_rows_of_the_run(tmp_path: Path, source: Path) -> None:
    data = prepare(tmp_path, source, train_samples=100)
    manager = DataVersionManager(tmp_path / "data")
    stored = manager.table(manager.get(data.versions["train"]))
    assert stored["text"].to_pylist() == data.train.texts
    assert [data.label_names.index(label) for label in stored["label"].to_pylist()] == data.train.labels.tolist()


def test_stored_versions_can_be_trained_on_again(tmp_path: Path, source: Path) -> None:
    data = prepare(tmp_path, source, train_samples=100)
    again = prepare(tmp_path, f"version:{data.versions['train']}+{data.versions['eval']}")
    assert again.versions == data.versions
    assert again.train.texts == data.train.texts
    assert again.train.labels.tolist() == data.train.labels.tolist()
    alone = prepare(tmp_path, f"version:{data.versions['train'][:8]}")
    assert len(alone.train) + len(alone.eval) == 100


def test_names_of_classes_survive_a_stored_version(tmp_path: Path) -> None:
    data = prepare(tmp_path, "sample:movie_reviews", train_samples=200, eval_samples=50)
    assert data.label_names == ("negative", "positive")
    assert data.report.label_counts.keys() == {"0", "1"}
    again = prepare(tmp_path, f"version:{data.versions['train']}+{data.versions['eval']}")
    assert again.label_names == ("negative", "positive")
    assert again.versions == data.versions


def test_a_folder_brings_its_own_splits(tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    for name, seed, rows in (("train", 1, 40), ("validation", 2, 20), ("test", 3, 20)):
        write_rows(
            folder / f"{name}.jsonl",
            [{"text": text, "label": number % 2} for number, text in enumerate(clean_texts(rows, seed=seed))],
        )
    data = prepare(tmp_path, folder)
    assert (len(data.train), data.eval.texts) == (40, clean_texts(20, seed=2))
    assert "Evaluating on the split 'validation'." in data.notes
    (folder / "validation.jsonl").unlink()
    assert prepare(tmp_path, folder).eval.texts == clean_texts(20, seed=3)
    (folder / "train.jsonl").rename(folder / "training.jsonl")
    with pytest.raises(MissingSplitError, match=r"training\.jsonl"):
        prepare(tmp_path, folder)


def test_pairs_numbers_and_lists_of_labels(tmp_path: Path) -> None:
    texts, pairs = clean_texts(60), clean_texts(60, seed=2)
    rows: list[dict[str, object]] = [
        {"premise": text, "hypothesis": pair, "label": number / 7}
        for number, (text, pair) in enumerate(zip(texts, pairs, strict=True))
    ]
    scored = prepare(tmp_path, write_rows(tmp_path / "scored.jsonl", rows))
    assert (scored.problem_type, scored.train.labels.dtype, scored.report.label_counts) == (
        "regression",
        np.float32,
        {},
    )
    assert scored.train.pairs == [pairs[row] for row in scored.train.row_ids]
    for number, row in enumerate(rows):
        row["label"] = [["a"], ["b", "a"], []][number % 3]
    several = prepare(tmp_path, write_rows(tmp_path / "several.jsonl", rows))
    assert several.problem_type == "multi_label_classification"
    expected = [[[1, 0], [1, 1], [0, 0]][row % 3] for row in several.train.row_ids]
    assert several.train.labels.tolist() == expected


def test_rows_that_cannot_be_trained_on_are_left_out_and_said(tmp_path: Path) -> None:
    rows = [{"text": text, "label": number % 2} for number, text in enumerate(clean_texts(60))]
    rows[3]["text"], rows[5]["label"], rows[9]["text"] = " ", None, "Bold <b>claim</b> of the day"
    rows[10]["text"] = "Markup that&lt;br&gt;was escaped"
    source = write_rows(tmp_path / "rows.jsonl", rows)
    data = prepare(tmp_path, source, validation_rules={"remove_html": True})
    used = {*data.train.row_ids.tolist(), *data.eval.row_ids.tolist()}
    assert used == set(range(60)) - {3, 5}
    assert {"Bold  claim  of the day", "Markup that was escaped"} <= {*data.train.texts, *data.eval.texts}
    assert any("1 rows without a label" in note for note in data.notes)
    kept = prepare(tmp_path, source, validation_rules={"allow_empty": True})
    assert 3 in {*kept.train.row_ids.tolist(), *kept.eval.row_ids.tolist()}


@pytest.mark.parametrize("options", [{"strict": True}, {"on_findings": "refuse"}])
def test_errors_are_refused_when_asked_for(tmp_path: Path, options: dict[str, Any]) -> None:
    texts = clean_texts(60)
    texts[41] = texts[40]
    source = write_rows(
        tmp_path / "rows.jsonl", [{"text": text, "label": number % 2} for number, text in enumerate(texts)]
    )
    with pytest.raises(DataRefusedError, match="label_conflict"):
        prepare(tmp_path, source, **options)
    assert prepare(tmp_path, source).report.has_errors
    cleaned = prepare(tmp_path, source, strict=True, on_findings="clean")
    assert not {40, 41} & {*cleaned.train.row_ids.tolist(), *cleaned.eval.row_ids.tolist()}
    assert any("label_conflict dropped" in note for note in cleaned.notes)


def test_labels_that_cleaning_mends_or_drops_decide_nothing(tmp_path: Path) -> None:
    spelled = [{"text": text, "label": ["bad", "good"][n % 2]} for n, text in enumerate(clean_texts(80))]
    spelled[7]["label"] = "Good"
    source = write_rows(tmp_path / "spelled.jsonl", spelled)
    with pytest.raises(LabelError, match="3 classes"):
        prepare(tmp_path, source, num_labels=2)
    assert prepare(tmp_path, source, num_labels=2, on_findings="clean").label_names == ("bad", "good")
    scored = [{"text": text, "label": str(n / 7)} for n, text in enumerate(clean_texts(80))]
    scored[14]["label"] = "five"
    cleaned = prepare(tmp_path, write_rows(tmp_path / "scored.jsonl", scored), on_findings="clean")
    assert cleaned.problem_type == "regression"
    assert 14 not in {*cleaned.train.row_ids.tolist(), *cleaned.eval.row_ids.tolist()}


def test_an_evaluation_split_with_other_spellings_is_cleaned_to_those_of_training(tmp_path: Path) -> None:
    for name, labels, seed in (("train", ("bad", "good"), 1), ("validation", ("Bad", "GOOD"), 2)):
        texts = clean_texts(60, seed=seed)
        rows = [{"text": text, "label": labels[number % 2]} for number, text in enumerate(texts)]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    data = prepare(tmp_path, tmp_path, on_findings="clean", strict=True)
    assert data.label_names == ("bad", "good")
    assert data.eval.labels.tolist() == [0, 1] * 30


def test_long_texts_are_counted_by_the_tokenizer(tmp_path: Path, source: Path) -> None:
    data = prepare(
        tmp_path,
        source,
        max_length=4,
        count_tokens=lambda texts, pairs: np.asarray([len(text.split()) for text in texts]),
    )
    assert data.report.finding_counts["text_truncated"] == 2


def test_an_evaluation_class_that_training_lacks_is_refused_by_name(tmp_path: Path) -> None:
    for name, labels in (("train", "ab"), ("validation", "ac")):
        rows = [{"text": text, "label": labels[number % 2]} for number, text in enumerate(clean_texts(30))]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    with pytest.raises(LabelError, match="train split has not: c"):
        prepare(tmp_path, tmp_path)


def test_too_many_classes_for_the_model_are_refused_by_name(tmp_path: Path, source: Path) -> None:
    with pytest.raises(LabelError, match=r"num_labels is 3.*2 classes: bad, good"):
        prepare(tmp_path, source, num_labels=3)


@pytest.mark.parametrize("rows", [[], [{"text": "a", "label": 1}], [{"text": "same", "label": "x"}] * 5])
def test_too_little_to_train_on_is_refused(tmp_path: Path, rows: list[object]) -> None:
    with pytest.raises((EmptyDatasetError, LabelError)):
        prepare(tmp_path, write_rows(tmp_path / "rows.jsonl", rows))


def test_labels_that_are_all_different_are_refused(tmp_path: Path) -> None:
    rows = [{"text": text, "label": f"id-{number}"} for number, text in enumerate(clean_texts(30))]
    with pytest.raises(DataError):
        prepare(tmp_path, write_rows(tmp_path / "rows.jsonl", rows))
