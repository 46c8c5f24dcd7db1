from __future__ import annotations

import json
from pathlib import Path

import pytest

from loramill.engine.model_labels import LABELS_FILE, ModelLabels
from loramill.errors import AdapterFormatError

LABELS = ModelLabels(("negative", "正面"), "single_label_classification", "package:some_model", 128, "abc")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    LABELS.write(tmp_path)
    assert ModelLabels.read(tmp_path) == LABELS


def test_a_model_saved_without_the_hash_of_its_base_is_read(tmp_path: Path) -> None:
    LABELS.write(tmp_path)
    stored = json.loads((tmp_path / LABELS_FILE).read_text(encoding="utf-8"))
    del stored["base_hash"]
    (tmp_path / LABELS_FILE).write_text(json.dumps(stored), encoding="utf-8")
    assert ModelLabels.read(tmp_path).base_hash == ""


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"label_names": "ab", "problem_type": "regression", "base_model": "b", "max_length": 8}',
        '{"label_names": [], "problem_type": "clustering", "base_model": "b", "max_length": 8}',
        '{"label_names": [], "problem_type": "regression", "base_model": "b", "max_length": "8"}',
        "[" * 100_000,
    ],
)
def test_anything_else_is_a_named_error(content: str, tmp_path: Path) -> None:
    (tmp_path / LABELS_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(AdapterFormatError, match=r"labels\.json cannot be read"):
        ModelLabels.read(tmp_path)


def test_a_folder_without_labels_asks_whether_the_experiment_has_finished(tmp_path: Path) -> None:
    with pytest.raises(AdapterFormatError, match="finished experiment"):
        ModelLabels.read(tmp_path)
