from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from loramill.errors import CorruptFileError, NotFoundError, UnwritableError
from loramill.experiments.folder import ExperimentFolder

NOW = datetime(2026, 3, 4, 5, 6, 7)


@pytest.fixture
def folder(tmp_path: Path) -> ExperimentFolder:
    return ExperimentFolder.create(tmp_path, "demo", NOW)


def test_the_name_is_the_experiment_and_the_second(folder: ExperimentFolder) -> None:
    assert folder.id == "demo_20260304_050607"
    assert folder.plots.is_dir()
    assert folder.artifacts.is_dir()


def test_many_in_one_second_get_a_name_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: ExperimentFolder.create(tmp_path, "demo", NOW), range(24)))
    suffixes = ["", *(f"_{number}" for number in range(2, 25))]
    assert {folder.id for folder in folders} == {f"demo_20260304_050607{suffix}" for suffix in suffixes}


def test_results_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file, where the folder should be")
    with pytest.raises(Exception, match="results") as caught:
        ExperimentFolder.create(tmp_path / "results", "demo", NOW)
    assert type(caught.value).__module__ == UnwritableError.__module__


def test_open_finds_what_create_made(folder: ExperimentFolder, tmp_path: Path) -> None:
    assert ExperimentFolder.open(tmp_path, folder.id) == folder


@pytest.mark.parametrize(
    "escape", ["", ".", "..", "../x", "a/b", "/etc", "C:x", "a\\b", "x\0", ".hidden", "n" * 256, "\n"]
)
def test_ids_that_lead_out_are_unknown(tmp_path: Path, escape: str) -> None:
    results = tmp_path / "results"
    (results / "a" / "b").mkdir(parents=True)
    (results / ".hidden").mkdir()
    (tmp_path / "x").mkdir()
    with pytest.raises(NotFoundError):
        ExperimentFolder.open(results, escape)


def test_a_link_that_leads_out_is_unknown(tmp_path: Path) -> None:
    results, outside = tmp_path / "results", tmp_path / "outside"
    results.mkdir()
    outside.mkdir()
    (results / "link").symlink_to(outside)
    with pytest.raises(NotFoundError):
        ExperimentFolder.open(results, "link")


def test_files_are_read_back_as_written(folder: ExperimentFolder) -> None:
    folder.write_config("training:\n  seed: 1\n")
    folder.write_metrics({"eval": {"accuracy": 0.5}})
    folder.write_environment({"python": "3"})
    folder.write_data({"train": {"version": "v1"}})
    assert folder.read_config_tree() == {"training": {"seed": 1}}
    assert folder.read_metrics() == {"eval": {"accuracy": 0.5}}
    assert folder.read_environment() == {"python": "3"}
    assert folder.read_data() == {"train": {"version": "v1"}}


def test_files_that_are_not_there_are_empty(folder: ExperimentFolder) -> None:
    empty = [folder.read_config(), folder.read_log(), folder.read_metrics(), folder.read_data(), folder.read_events()]
    assert empty == ["", "", {}, {}, []]


def test_damage_is_named(folder: ExperimentFolder) -> None:
    folder.metrics_file.write_text("{")
    folder.config_file.write_text("- a list")
    with pytest.raises(CorruptFileError, match=r"metrics\.json"):
        folder.read_metrics()
    with pytest.raises(CorruptFileError, match=r"config\.yaml"):
        folder.read_config_tree()


def test_a_torn_last_event_is_left_out_and_the_next_one_kept(folder: ExperimentFolder) -> None:
    folder.append_event({"step": 1})
    with folder.events_file.open("a") as file:
        file.write('{"step": 2, "lo')
    assert folder.read_events() == [{"step": 1}]
    folder.append_event({"step": 3})
    assert folder.read_events() == [{"step": 1}, {"step": 3}]


def test_an_event_is_one_line(folder: ExperimentFolder) -> None:
    folder.append_event({"message": "two\nlines", "chinese": "中文"})
    [line] = folder.events_file.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {"message": "two\nlines", "chinese": "中文"}


def test_training_can_use_it_without_sql() -> None:
    script = "import sys, loramill.experiments.folder; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
