from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from loramill.database import Database
from loramill.experiments.deletion import delete_experiment
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Status
from loramill.experiments.record_file import changing, reindex, save_record, save_records
from loramill.experiments.registry import ModelRegistry
from loramill.experiments.search import Order
from loramill.experiments.store import ExperimentStore, NewExperiment


def everything(database: Database) -> list[dict[str, object]]:
    with database.reading() as session:
        store, registry = ExperimentStore(session), ModelRegistry(session)
        items = store.list_page(ExperimentFilter(archived=None), order=Order("created_at"), limit=100).items
        return [
            {
                **item.as_dict(),
                "data": store.data_of(item.id),
                "config": store.get(item.id).config,
                "aliases": registry.aliases(item.id),
                "history": [move.as_dict() for move in registry.history(item.id)],
            }
            for item in items
        ]


def fresh_copy(database: Database, tmp_path: Path) -> Database:
    copy = Database(f"sqlite:///{tmp_path / 'rebuilt.db'}")
    copy.upgrade()
    return copy


def test_deleting_the_database_loses_nothing(database: Database, results: Path, make_run, tmp_path: Path) -> None:
    folders = [make_run(f"run{number}") for number in range(4)]
    reindex(database, results)
    with database.transaction() as session:
        store, registry = ExperimentStore(session), ModelRegistry(session)
        store.get(folders[0].id).owner = "u1"
        store.add_tags(folders[0].id, ["keep", "中文"])
        store.set_notes(folders[1].id, "two\nlines")
        store.set_archived(folders[2].id, True)
        registry.set_stage(folders[3].id, "production", by="ann", reason="best")
        registry.set_alias("live", folders[3].id, by="ann")
        store.link_data(folders[3].id, "train", ["another"])
    for folder in folders:
        save_record(database, results, folder.id)
    rebuilt = fresh_copy(database, tmp_path)
    report = reindex(rebuilt, results)
    assert report.added == tuple(folder.id for folder in folders)
    assert everything(rebuilt) == everything(database)
    rebuilt.close()


def test_folders_without_a_record_tell_what_their_files_know(database: Database, results: Path, make_run) -> None:
    folder = make_run("plain")
    reindex(database, results)
    [found] = everything(database)
    assert (found["id"], found["name"], found["status"]) == (folder.id, "plain", Status.SUCCESS)
    assert found["metrics"]["eval_accuracy"] == 0.9
    assert found["data"] == {"train": ["v-train"], "eval": ["v-eval"]}
    assert found["created_at"].startswith("2026-01-01")
    assert found["started_at"] < found["finished_at"]


def test_reindex_leaves_known_rows_alone(database: Database, results: Path, make_run) -> None:
    folder = make_run()
    reindex(database, results)
    with database.transaction() as session:
        ExperimentStore(session).set_notes(folder.id, "mine")
    report = reindex(database, results)
    assert (report.added, report.known) == ((), 1)
    assert everything(database)[0]["notes"] == "mine"


def test_damaged_folders_are_named_and_passed_over(database: Database, results: Path, make_run) -> None:
    good, torn, wrong, unmeasured = (make_run(name) for name in ("good", "torn", "wrong", "unmeasured"))
    unmeasured.metrics_file.write_text("{", encoding="utf-8")
    shutil.copytree(good.path, results / f".deleted-{good.id}")
    (torn.path / "record.json").write_text("{")
    (wrong.path / "record.json").write_text(json.dumps({"name": "x", "created_at": "yesterday"}))
    (results / "unrelated").mkdir()
    report = reindex(database, results)
    assert report.added == (good.id,)
    assert [experiment_id for experiment_id, _ in report.unreadable] == [torn.id, unmeasured.id, wrong.id]
    again = reindex(database, results)
    assert (again.added, again.known, len(again.unreadable)) == ((), 1, 3)


RECORD = {
    "name": "n", "model_name": "m", "dataset_name": "d", "task": "SEQ_CLS", "status": "SUCCESS",
    "created_at": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("record.json", json.dumps({**RECORD, "created_at": "2026-01-01T00:00:00"})),
        ("record.json", json.dumps({**RECORD, "name": 5, "dataset_name": []})),
        ("record.json", json.dumps({**RECORD, "status": ["SUCCESS"], "archived": {}})),
        ("record.json", json.dumps({**RECORD, "tags": [1, None], "data": ["x"]})),
        ("record.json", json.dumps({**RECORD, "tags": [""]})),
        ("record.json", json.dumps({**RECORD, "history": [{"kind": "stage"}]})),
        ("record.json", json.dumps({**RECORD, "name": None, "notes": None})),
    ],
)
def test_a_folder_that_no_row_can_be_made_of_costs_no_other_its_row(
    database: Database, results: Path, make_run, file: str, content: str
) -> None:
    before, damaged, after = (make_run(name) for name in ("before", "damaged", "after"))
    (damaged.path / file).write_text(content, encoding="utf-8")
    report = reindex(database, results)
    assert report.added == (before.id, after.id)
    assert [experiment_id for experiment_id, _ in report.unreadable] == [damaged.id]
    assert [run["id"] for run in everything(database)] == [after.id, before.id]


def test_a_run_that_never_ended_is_at_work_as_long_as_it_speaks(database: Database, results: Path, make_run) -> None:
    """Which process had it is not known any more: that was in the database that is gone."""
    killed, going = make_run("killed"), make_run("going")
    for folder in (killed, going):
        folder.append_event({"type": "status", "status": "STARTED", "time": time.time()})
    long_ago = time.time() - 3600
    os.utime(killed.events_file, (long_ago, long_ago))
    reindex(database, results)
    assert {run["name"]: run["status"] for run in everything(database)} == {"killed": "REVOKED", "going": "STARTED"}
    delete_experiment(database, results, killed.id, files=True)


def test_numbers_that_nothing_can_hold_are_left_out(database: Database, results: Path, make_run) -> None:
    folder = make_run()
    folder.metrics_file.write_text(f'{{"eval": {{"loss": 1{"0" * 400}, "accuracy": 0.5}}}}', encoding="utf-8")
    folder.events_file.write_text('{"type": "status", "status": "SUCCESS", "time": 1e300}\n', encoding="utf-8")
    reindex(database, results)
    [found] = everything(database)
    assert (found["metrics"], found["status"], found["started_at"]) == ({"eval_accuracy": 0.5}, "SUCCESS", None)


def test_each_file_of_a_run_is_read_once(database: Database, results: Path, make_run, monkeypatch) -> None:
    read: list[str] = []

    def noting(folder: ExperimentFolder) -> dict[str, object]:
        read.append(folder.id)
        return {}

    folder = make_run()
    reindex(database, results)
    save_record(database, results, folder.id)
    with database.transaction() as session:
        ExperimentStore(session).delete(folder.id)
    monkeypatch.setattr(ExperimentFolder, "read_config_tree", noting)
    monkeypatch.setattr(ExperimentFolder, "read_metrics", noting)
    reindex(database, results)
    assert read == [folder.id] * 2


def test_the_newest_in_a_stage_stays_the_newest(database: Database, results: Path, make_run, tmp_path: Path) -> None:
    """By the time of the move: rows come back in the order of their runs, which is another one."""
    older, newer = make_run("older"), make_run("newer")
    reindex(database, results)
    for folder in (newer, older):
        with changing(database, results, folder.id) as (_, registry):
            registry.set_stage(folder.id, "staging", by="ann")
    rebuilt = fresh_copy(database, tmp_path)
    reindex(rebuilt, results)
    with rebuilt.reading() as session:
        assert ModelRegistry(session).newest_in_stage("staging") == older.id
    rebuilt.close()


def test_a_job_has_a_record_and_a_sweep_one_for_each_trial(database: Database, results: Path, make_run) -> None:
    run, *trials = (make_run(f"run{number}") for number in range(3))
    reindex(database, results)
    with database.transaction() as session:
        for trial in trials:
            ExperimentStore(session).get(trial.id).sweep_id = "s"
    save_records(database, results, run.id)
    assert [(folder.path / "record.json").is_file() for folder in (run, *trials)] == [True, False, False]
    save_records(database, results, "s")
    assert all((trial.path / "record.json").is_file() for trial in trials)


def test_nothing_to_index(database: Database, results: Path) -> None:
    assert reindex(database, results).added == ()


@pytest.mark.parametrize("files", [True, False])
def test_delete_the_row_or_the_files_too(database: Database, results: Path, make_run, files: bool) -> None:
    folder = make_run()
    reindex(database, results)
    delete_experiment(database, results, folder.id, files=files)
    assert everything(database) == []
    assert folder.path.exists() is not files
    assert len(reindex(database, results).added) == (0 if files else 1)


def test_what_people_say_of_a_run_that_lies_elsewhere_is_saved_there(
    database: Database, results: Path, make_run
) -> None:
    folder = make_run(config={"training": {"output_dir": "elsewhere"}})
    reindex(database, results)
    (results.parent / "elsewhere").mkdir()
    moved = folder.path.rename(results.parent / "elsewhere" / folder.id)
    with changing(database, results, folder.id) as (store, _):
        store.add_tags(folder.id, ["mine"])
    assert json.loads((moved / "record.json").read_text())["tags"] == ["mine"]


def test_delete_a_run_that_lies_elsewhere(database: Database, results: Path, make_run) -> None:
    folder = make_run(config={"training": {"output_dir": "elsewhere"}})
    reindex(database, results)
    (results.parent / "elsewhere").mkdir()
    moved = folder.path.rename(results.parent / "elsewhere" / folder.id)
    delete_experiment(database, results, folder.id, files=True)
    assert list(moved.parent.iterdir()) == []


def test_delete_without_a_folder(database: Database, results: Path) -> None:
    with database.transaction() as session:
        ExperimentStore(session).create(NewExperiment("a", "a", {}, "m", "d", "t"))
    delete_experiment(database, results, "a", files=True)
    assert everything(database) == []
