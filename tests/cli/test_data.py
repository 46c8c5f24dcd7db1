"""``loramill data``: the whole path of a data set at the shell, from a look to a trace."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli_runs import loramill
from data_rows import clean_texts, write_rows
from loramill.cli.data import app
from loramill.config.schema import ExperimentConfig
from loramill.data.datasets import DatasetStore, NewVersion
from loramill.data.version_manager import DataVersionManager
from loramill.database import Database
from loramill.errors import ConflictError, DatasetNotFoundError
from loramill.experiments.store import ExperimentStore, NewExperiment


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False, env={"COLUMNS": "160"})
    assert result.exit_code == code, result.output
    return result.stdout


def read(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code))


@pytest.fixture
def source(home: Path) -> Path:
    texts = clean_texts(40)
    texts[7], texts[9] = "Bold [red]<b>claim</b>[/red] of :smile:", texts[8]
    return write_rows(home / "rows.jsonl", [{"review": text, "grade": number % 2} for number, text in enumerate(texts)])


def test_validate_prints_one_json_document_with_the_known_keys(source: Path) -> None:
    report = read("validate", source)
    assert (report["total_samples"], report["label_counts"], report["is_balanced"]) == (40, {"0": 20, "1": 20}, True)
    found = {(finding["code"], finding["row"]) for finding in report["findings"]}
    assert found == {("html_tags", 7), ("label_conflict", 8), ("label_conflict", 9)}
    assert {"code", "severity", "row", "column", "excerpt", "fix"} <= report["findings"][0].keys()


def test_validate_shows_people_rules_rows_and_fixes(source: Path) -> None:
    shown = run("validate", source)
    assert "40 rows. Labels: 0: 20, 1: 20. Ratio 1 (balanced)." in shown
    assert "error label_conflict  2x" in shown
    assert "train row 7, review:  Bold [red]<b>claim</b>[/red] of :smile:" in shown
    assert "No findings." in run("validate", write_rows(source.parent / "clean.jsonl", _clean_rows()))


def test_the_rules_of_a_config_and_of_flags_hold(source: Path, home: Path) -> None:
    assert read("validate", source, "--min-text-length", 70)["finding_counts"]["text_too_short"] > 1
    config = home / "config.yaml"
    config.write_text(f"data:\n  dataset_name: {source}\n  validation_rules: {{remove_html: true}}\n")
    severities = {finding["code"]: finding["severity"] for finding in read("validate", config)["findings"]}
    assert severities["html_tags"] == "info"
    named = read("validate", source, "--text-column", "grade", "--label-column", "review")
    assert named["finding_counts"]["label_many_values"] == 1


def test_strict_and_unreadable_data_fail(source: Path, home: Path) -> None:
    run("validate", source, "--strict", code=1)
    report = read("validate", home / "missing.csv", code=1)
    assert [finding["code"] for finding in report["findings"]] == ["dataset_not_found"]
    with pytest.raises(DatasetNotFoundError):
        run("validate", home / "missing.csv")


def test_a_column_that_a_split_lacks_is_reported_under_the_split(source: Path, home: Path) -> None:
    (home / "rows").mkdir()
    source.rename(home / "rows" / "train.jsonl")
    write_rows(home / "rows" / "validation.jsonl", [{"review": "no grade here"}])
    (finding,) = read("validate", home / "rows", code=1)["findings"]
    assert (finding["code"], finding["split"]) == ("column_missing", "validation")


def test_analyze_describes_and_writes_a_page(source: Path, home: Path) -> None:
    analysis = read("analyze", source, "--html", home / "report.html")
    assert analysis["splits"]["train"]["rows"] == 40
    assert "<svg" in (home / "report.html").read_text(encoding="utf-8")
    shown = run("analyze", source)
    assert "Split train: 40 rows, 39 distinct texts" in shown
    assert "characters" in shown


def test_clean_writes_new_files_and_a_record_and_leaves_the_original(source: Path, home: Path) -> None:
    before = source.read_bytes()
    outcome = read("clean", source)
    folder = Path(outcome["folder"])
    assert outcome["changes"] == {"html_tags repaired": 1, "label_conflict dropped": 2}
    changes = [json.loads(line) for line in (folder / "changes.jsonl").read_text().splitlines()]
    assert [(change["row"], change["code"]) for change in changes] == [
        (7, "html_tags"),
        (8, "label_conflict"),
        (9, "label_conflict"),
    ]
    assert len((folder / "train.jsonl").read_text().splitlines()) == 38
    assert source.read_bytes() == before
    with pytest.raises(ConflictError):
        run("clean", source)
    assert "3 changes" in run("clean", source, "--force")
    cleaned = DataVersionManager(home / "data").get(outcome["versions"]["train"]["after"])
    assert cleaned.parents == (outcome["versions"]["train"]["before"],)
    assert read("validate", folder / "train.jsonl")["finding_counts"] == {}


def test_clean_lists_the_lines_that_could_not_be_read(home: Path) -> None:
    lines = [f"{text},{number % 2}" for number, text in enumerate(clean_texts(20))]
    (home / "rows.csv").write_text("\n".join(["text,label", *lines[:7], "one value", *lines[7:]]))
    outcome = read("clean", home / "rows.csv")
    assert outcome["changes"] == {"row_wrong_columns dropped": 1}
    (change,) = [json.loads(line) for line in (Path(outcome["folder"]) / "changes.jsonl").read_text().splitlines()]
    assert (change["row"], change["action"], change["before"]) == (7, "dropped", "one value")


@pytest.mark.parametrize("name", ["train.jsonl", "changes.jsonl"])
def test_clean_never_writes_to_the_file_or_folder_that_it_read(source: Path, home: Path, name: str) -> None:
    folder = home / "mine"
    folder.mkdir()
    original = source.rename(folder / name)
    content = original.read_bytes()
    with pytest.raises(ConflictError, match="the original stays"):
        run("clean", original, "--output", folder, "--force")
    original.rename(folder / "train.jsonl")
    with pytest.raises(ConflictError, match="the original stays"):
        run("clean", folder, "--output", folder, "--format", "csv")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"train.jsonl": content}


def test_versions_are_stored_listed_compared_and_restored(source: Path, home: Path) -> None:
    first = read("version", source, "--tag", "raw", "--description", "as it came")["train"]
    assert first["is_new"]
    renamed = source.rename(home / "renamed.jsonl")
    again = read("version", renamed)["train"]
    assert (again["id"], again["is_new"], again["stored_bytes"]) == (first["id"], False, 0)
    lines = renamed.read_text().splitlines()
    (home / "longer.jsonl").write_text("\n".join([*lines[:-1], lines[0]]) + "\n")
    second = read("version", home / "longer.jsonl", "--parent", "raw")["train"]
    assert [version["id"] for version in read("list")["versions"]] == [first["id"], second["id"]]
    assert "as it came" in run("list")
    changes = read("diff", "raw", second["id"][:8])
    assert (changes["added"], changes["removed"], changes["relabelled"], changes["unchanged"]) == (1, 1, 0, 39)
    assert "1 added, 1 removed" in run("diff", "raw", second["id"])
    shown = read("show", second["id"])
    assert (shown["parents"], shown["used_by"], shown["tags"]) == ([first["id"]], [], [])
    assert "as it came" in run("show", "raw")
    assert read("verify", "raw")["intact"]
    read("restore", "raw", home / "restored.csv")
    restored = read("version", home / "restored.csv")["train"]
    assert (restored["id"], restored["is_new"]) == (first["id"], False)
    with pytest.raises(ConflictError):
        run("restore", "raw", home / "restored.csv")


def test_a_version_that_an_experiment_uses_stays(source: Path, home: Path) -> None:
    used = read("version", source)["train"]["id"]
    free = read("version", write_rows(home / "other.jsonl", _clean_rows()))["train"]["id"]
    _record(home, "run_20260101_000000", {"train": used, "eval": free})
    with pytest.raises(ConflictError, match="run_20260101_000000"):
        run("delete", used)
    assert read("show", used)["used_by"] == ["run_20260101_000000"]
    _record(home, "run_20260101_000000", {"train": used, "eval": used})
    assert read("delete", free) == {"deleted": free}
    assert read("gc")["freed_bytes"] > 0
    assert "0 bytes freed" in run("gc")
    assert [version["id"] for version in read("list")["versions"]] == [used]


def test_a_version_that_waits_elsewhere_or_was_uploaded_stays(
    source: Path, home: Path, home_database: Database
) -> None:
    used = read("version", source, "--tag", "raw")["train"]["id"]

    def assert_kept_for(user: str) -> None:
        with pytest.raises(ConflictError, match=rf": {user}\."):
            run("delete", "raw")

    with home_database.transaction() as session:
        for name, dataset_name in (("by_id", f"version:{used}"), ("by_tag", "version:raw+raw")):
            config = ExperimentConfig.model_validate({"data": {"dataset_name": dataset_name}})
            ExperimentStore(session).create(NewExperiment.from_config(name, config))
    assert_kept_for("by_id, by_tag")
    with home_database.transaction() as session:
        ExperimentStore(session).delete("by_id")
        ExperimentStore(session).delete("by_tag")
        config = ExperimentConfig.model_validate({"training": {"output_dir": "elsewhere"}})
        ExperimentStore(session).create(NewExperiment.from_config("run_elsewhere", config))
    _record(home, "run_elsewhere", {"train": used, "eval": used}, results="elsewhere")
    assert_kept_for("run_elsewhere")
    assert [use["experiment_id"] for use in read("who-used", source)["experiments"]] == ["run_elsewhere"] * 2
    with home_database.transaction() as session:
        ExperimentStore(session).delete("run_elsewhere")
        store = DatasetStore(session)
        dataset = store.create("u1", "mine")
        store.add_version(dataset, NewVersion("upload", "rows.csv", 1, {"train": (used, 40)}, {}))
    assert_kept_for(dataset.id)
    assert read("show", used)["used_by"] == [dataset.id]


def test_the_experiments_that_saw_a_row_are_found(source: Path, home: Path) -> None:
    train = read("version", source)["train"]["id"]
    other = read("version", write_rows(home / "other.jsonl", _clean_rows()))["train"]["id"]
    _record(home, "first_20260101_000000", {"train": train, "eval": other})
    _record(home, "second_20260101_000000", {"train": other, "eval": other, "label_names": ["0", "1"]})
    _record(home, "lost_20260101_000000", {"train": "0" * 32})
    (home / "results" / "first_20260101_000000" / "notes").mkdir()
    text = clean_texts(40)[3]
    seen = read("who-used", "--text", text)["experiments"]
    assert seen == [{"experiment_id": "first_20260101_000000", "split": "train", "rows": 1, "version": train}]
    assert {use["experiment_id"] for use in read("who-used", home / "other.jsonl")["experiments"]} == {
        "first_20260101_000000",
        "second_20260101_000000",
    }
    assert [use["rows"] for use in read("who-used", f"version:{train[:8]}")["experiments"]] == [40]
    assert "first_20260101_000000" in run("who-used", source)
    assert "No experiment" in run("who-used", "--text", "never seen")


def test_tags_are_given_and_taken_away(source: Path) -> None:
    version = read("version", source)["train"]["id"]
    assert read("tag", version[:8], "golden")["tags"] == ["golden"]
    assert "golden" in run("list")
    assert read("tag", "golden", "golden", "--remove")["tags"] == []


def test_an_empty_store_says_how_to_begin(home: Path) -> None:
    assert "loramill data version SOURCE" in run("list")
    assert read("list") == {"versions": [], "stored_bytes": 0}


def test_what_may_not_be_read_or_written_is_named(source: Path, home: Path) -> None:
    without_power = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if without_power and not shutil.which("setpriv"):
        pytest.skip("root reads and writes everywhere, and setpriv is not here to take that away")

    def assert_refused(closed: Path, mode: int, code: str, *arguments: str | Path) -> None:
        before = stat.S_IMODE(closed.stat().st_mode)
        closed.chmod(mode)
        refused = loramill(home, "data", *arguments, before=without_power)
        closed.chmod(before)
        assert refused.returncode == 1
        assert f"error [{code}]" in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr

    stored = read("version", source)["train"]["id"]
    other = write_rows(home / "other.jsonl", _clean_rows())
    metadata = home / "data" / "metadata"
    assert_refused(source, 0, "data_unreadable", "validate", source)
    assert_refused(metadata / "versions", 0, "storage_failed", "gc")
    assert_refused(metadata / "versions", 0o500, "folder_unwritable", "delete", stored)
    assert_refused(home / "data" / "datasets", 0o500, "folder_unwritable", "version", other)
    (metadata / ".lock").unlink()
    assert_refused(metadata, 0o500, "folder_unwritable", "tag", stored, "golden")
    assert read("verify", stored)["intact"]


def _clean_rows() -> list[dict[str, object]]:
    return [{"review": text, "grade": number % 2} for number, text in enumerate(clean_texts(30, seed=7))]


def _record(home: Path, experiment: str, content: dict[str, object], results: str = "results") -> None:
    folder = home / results / experiment
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.json").write_text(json.dumps(content))
