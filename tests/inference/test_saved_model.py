from __future__ import annotations

import os
import shutil

import pytest

from loramill.engine.model_labels import LABELS_FILE
from loramill.engine.peft_format import WEIGHTS_FILE
from loramill.errors import AdapterFormatError, NotFoundError
from loramill.inference.saved_model import SavedModel, find_experiment, finished_experiments
from served_models import Experiments


def test_equal_content_is_the_same_version_wherever_it_lies(experiments: Experiments) -> None:
    first, second = experiments.save_constant("first", 3), experiments.save_constant("second", 3)
    versions = {SavedModel.read(first).version, SavedModel.read(second).version}
    assert len(versions) == 1
    assert SavedModel.read(experiments.save_constant("second", 4)).version not in versions


@pytest.mark.parametrize("name", [WEIGHTS_FILE, LABELS_FILE])
def test_a_changed_file_is_another_version(experiments: Experiments, name: str) -> None:
    folder = experiments.save_constant("first", 3)
    before = SavedModel.read(folder).version
    file = folder.final_model / name
    file.write_bytes(file.read_bytes() + b" ")
    assert SavedModel.read(folder).version != before


def test_a_model_without_weights_is_named(experiments: Experiments) -> None:
    folder = experiments.save_constant("first", 3)
    (folder.final_model / WEIGHTS_FILE).unlink()
    with pytest.raises(AdapterFormatError, match=WEIGHTS_FILE):
        SavedModel.read(folder)


def test_latest_is_the_one_that_finished_last(experiments: Experiments) -> None:
    for age, name in ((30, "older"), (10, "newest"), (20, "old")):
        folder = experiments.save_constant(name, 1)
        os.utime(folder.metrics_file, (1_800_000_000 - age,) * 2)
    running = experiments.save_constant("running", 1)
    running.metrics_file.unlink()
    failed = experiments.save_constant("failed", 1)
    shutil.rmtree(failed.final_model)
    assert find_experiment(experiments.results).id == "newest"
    assert [folder.id for folder in finished_experiments(experiments.results)] == ["newest", "old", "older"]


def test_without_experiments_the_error_says_how_to_get_one(experiments: Experiments) -> None:
    with pytest.raises(NotFoundError, match="make quickstart"):
        find_experiment(experiments.results)


def test_a_wrong_id_gets_the_nearest_ones(experiments: Experiments) -> None:
    experiments.save_constant("quickstart_20260101_120000", 1)
    with pytest.raises(NotFoundError, match=r"Did you mean quickstart_20260101_120000\?"):
        find_experiment(experiments.results, "quickstart_20260101_120001")


@pytest.mark.parametrize("name", ["../results", "..", ".", "/etc", "a/b", "", "\0", "x" * 300])
def test_no_name_leads_out_of_the_folder(experiments: Experiments, name: str) -> None:
    with pytest.raises(NotFoundError):
        find_experiment(experiments.results, name)
